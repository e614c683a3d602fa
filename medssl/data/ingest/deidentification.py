"""De-identification of a store: pseudonyms replace names and paths; the lookup tables go to a private folder.

An ingestion calls `rename` once it has found the cases, and `write_ledger` once it has prepared them.
"""

import csv
import io
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.data.ingest import file_ledger
from medssl.data.ingest.file_ledger import COLUMNS, LedgerRow, rejected_rows
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout
from medssl.data.ingest.source import Source, escape_path, make_pseudonym
from medssl.data.manifest import Case
from medssl.errors import BadInput, InputWarning, Message, as_message, restore_message
from medssl.files import write_text
from medssl.io.dicom.deidentify import MAX_AGE_YEARS, PseudonymKey, redact_structure_name

HIDDEN = "hidden-"
BURNED_IN = Message("text may stand in the pixels: such images are not de-identified")


@dataclass(frozen=True)
class NoPseudonyms:
    """Writes names, paths and reasons to the store as they are."""

    store: Path
    key_file: Path | None = None

    @property
    def key_fingerprint(self) -> str:
        """The fingerprint of the key, which store.json records; empty without a key."""
        return ""

    @property
    def records(self) -> Path:
        """The folder with a record of each case that is done."""
        return self.store / "records"

    def open_store(self, is_new: bool, fingerprint: str) -> None:
        """Raises BadInput if the names of the store are hidden, i.e. if it has the fingerprint of a key."""
        if fingerprint:
            raise BadInput(f"{self.store}: its names are hidden; omit --no-deidentify or use another --out")

    def rename(self, layout: DatasetLayout, other_ids: Collection[str]) -> DatasetLayout:
        """Returns the layout with the ids, locations and reasons that the store may show.

        Args:
            layout: What was found in the folder of scans.
            other_ids: Ids that the store uses for cases of other folders.
        """
        renamed = {source.id: self._rename_source(source) for source in layout.sources}
        for case, source in renamed.items():
            if source.id in other_ids:
                suffix = make_pseudonym(self._public_location(str(source.images[0])))
                renamed[case] = replace(source, id=f"{source.id}-{suffix}")
        present = {renamed[case].id: classes for case, classes in layout.present_labels.items() if case in renamed}
        rows = [replace(row, public_reason=self._public_reason(row)) for row in layout.rows]
        return replace(layout, sources=list(renamed.values()), rows=rows, present_labels=present)

    def write_ledger(self, rows: Iterable[LedgerRow], sources: Mapping[str, str]) -> tuple[LedgerRow, ...]:
        """Writes the ledger and returns its rows.

        Args:
            rows: A row for every file, with real paths and reasons.
            sources: The real location of each case.
        """
        public = tuple(LedgerRow(row.path, row.status, row.case, row.reason, row.warnings) for row in rows)
        file_ledger.write_ledger(self.store / "ledger.csv", public)
        return public

    def _rename_source(self, source: Source) -> Source:
        return replace(source, location=self._public_location(source.real_location))

    def _public_location(self, location: str) -> str:
        return location

    def _public_reason(self, row: LedgerRow) -> str:
        return row.reason


@dataclass(frozen=True)
class Pseudonymizer(NoPseudonyms):
    """Replaces names and paths by pseudonyms; the private folder next to the store holds the real ones.

    Cases of published data sets keep their names unless `hide_names`.

    Attributes:
        hide_names: Whether published names are replaced, too.
        has_patient_table: Whether the patients come from a table of the user.
    """

    hide_names: bool = False
    has_patient_table: bool = False

    @property
    def key_fingerprint(self) -> str:
        """The fingerprint of the key, which store.json records."""
        return self._read_key().make_pseudonym("mark", "")

    @property
    def records(self) -> Path:
        """The folder with a record of each case that is done; it is private because records hold real paths."""
        return private_dir(self.store) / "records"

    def open_store(self, is_new: bool, fingerprint: str) -> None:
        """Creates the private folder and, for a new store, its key.

        Raises:
            BadInput: The store was made without a key, or its fingerprint is that of another key.
        """
        if not is_new and not fingerprint:
            raise BadInput(f"{self.store}: its names are not hidden; add --no-deidentify or use another --out")
        folder = private_dir(self.store)
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_new and self.key_file == folder / "key" and not self.key_file.exists():
            PseudonymKey.create(self.key_file)
        if not is_new and fingerprint != self.key_fingerprint:
            raise BadInput(f"{self.store}: was not made with the key {self.key_file}; give its key with --key FILE")

    def rename(self, layout: DatasetLayout, other_ids: Collection[str]) -> DatasetLayout:
        """Returns the layout with pseudonyms, and with refused rows for the cases whose pixels may show text."""
        burned_in = [row for s in layout.sources if s.burned_in for row in rejected_rows(s.files, BURNED_IN)]
        has_structures = any((s.series and s.label) or s.label_parts for s in layout.sources)
        key = self._read_key()
        labels = {n: redact_structure_name(name, key) if has_structures else name for n, name in layout.labels.items()}
        sources = [s for s in layout.sources if not s.burned_in]
        rows = [*layout.rows, *burned_in]
        return super().rename(replace(layout, sources=sources, rows=rows, labels=labels), other_ids)

    def write_ledger(self, rows: Iterable[LedgerRow], sources: Mapping[str, str]) -> tuple[LedgerRow, ...]:
        """Writes the private tables, then the ledger, so that every name in the ledger can be resolved."""
        key = self._read_key()
        named = sorted(((HIDDEN + key.make_pseudonym("file", row.path), row) for row in rows), key=lambda pair: pair[0])
        folder = private_dir(self.store)
        _write_table(folder / "files.csv", ("name", *COLUMNS), ((name, *row.columns) for name, row in named))
        _write_table(folder / "sources.csv", ("case", "source"), sorted(sources.items()))
        return super().write_ledger((self._public_row(name, row) for name, row in named), sources)

    def _public_row(self, name: str, row: LedgerRow) -> LedgerRow:
        public_warnings = row.public_warnings or private_note(self.store) if row.warnings else ""
        return LedgerRow(name, row.status, row.case, self._public_reason(row), public_warnings)

    def _public_reason(self, row: LedgerRow) -> str:
        return row.public_reason or private_note(self.store) if row.reason else ""

    def _public_location(self, location: str) -> str:
        """Returns pseudonyms of the files or the folder, and of the series if there is one."""
        place, hash_mark, series = location.partition("#")
        key = self._read_key()
        return HIDDEN + key.make_pseudonym("place", place) + (hash_mark and "#" + key.make_pseudonym("series", series))

    def _rename_source(self, source: Source) -> Source:
        """Replaces the names; ages over 89 become 90, and a sex other than M, F and O becomes empty."""
        key = self._read_key()
        keeps_name = source.published and not self.hide_names
        path = str(source.images[0])
        kind = "image" if source.series is None else source.modalities[0]
        case = source.id.replace(make_pseudonym(path), key.make_pseudonym("file", path)) if keeps_name else ""
        is_private = self.has_patient_table or not keeps_name
        site = key.make_pseudonym("site", source.site) if is_private and source.site else source.site
        if source.series and not self.has_patient_table:  # the vendor of a scanner is not private
            site = f"{source.site.rpartition(' ')[0]} {site[:6]}".strip()
        return replace(
            super()._rename_source(source),
            id=case or f"{kind}-{key.make_pseudonym('case', source.id)}",
            patient=key.make_pseudonym("patient", source.patient) if is_private else source.patient,
            site=site,
            age_years=source.age_years and min(source.age_years, MAX_AGE_YEARS + 1),
            sex=source.sex if source.sex in ("M", "F", "O") else "",
        )

    def _read_key(self) -> PseudonymKey:
        assert self.key_file is not None
        return PseudonymKey.read(self.key_file)


def private_dir(store: Path) -> Path:
    """Returns the folder next to a store that only its owner may read; it holds the key and the lookup tables."""
    return store.absolute().with_name(f"{store.absolute().name}.private")


def private_note(store: Path) -> str:
    """Returns the text that replaces a message without a public version."""
    return f"see {private_dir(store).name}/files.csv"


def is_hidden(case: Case) -> bool:
    """Returns whether the location of a case is hidden, as in a de-identified store."""
    return case.source.startswith(HIDDEN)


def read_real_sources(cases: Iterable[Case], store: Path) -> dict[str, str]:
    """Returns the real location of each case of a store, from the private folder where locations are hidden."""
    cases = list(cases)
    locations = {case.id: case.source for case in cases}
    hidden = {case.id for case in cases if is_hidden(case)}
    rows = file_ledger.read_table(private_dir(store) / "sources.csv") if hidden else []
    real = {row["case"]: row["source"] for row in rows}
    if missing := sorted(hidden - set(real)):
        folder = private_dir(store)
        raise BadInput(f"{missing[0]}: its location is private; restore the folder {folder} next to the store")
    return locations | {case: real[case] for case in hidden}


def read_real_rows(store: Path, without: Path | None = None) -> list[LedgerRow]:
    """Returns the ledger of a store with real paths, reasons and warnings, without the files of a folder."""
    ledger = file_ledger.read_table(store / "ledger.csv")
    is_hidden = any(row["path"].startswith(HIDDEN) for row in ledger)
    rows = file_ledger.read_table(private_dir(store) / "files.csv") if is_hidden else ledger
    if is_hidden and not rows:
        raise BadInput(f"{store}: the folder {private_dir(store)} with the names of its files is missing; restore it")
    if without is not None:
        prefix = escape_path(f"{without}{os.sep}")
        rows = [row for row in rows if not row["path"].startswith(prefix)]
    public = {row["path"]: row for row in ledger} if is_hidden and rows else {}
    return [_restore_row(row, public.get(row.get("name", ""))) for row in rows]


@contextmanager
def redact_warnings(case: str, hidden: bool, store: Path) -> Iterator[None]:
    """Reduces the errors and warnings of reading a case to their public versions.

    Args:
        case: The case that is read; the messages begin with it.
        hidden: Whether the location of the case is hidden; if not, messages pass unchanged.
        store: The store of the case.
    """
    if not hidden:
        yield
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except BadInput as error:
        raise BadInput(_redact(error.message, case, store)) from None
    for warning in caught:
        if issubclass(warning.category, InputWarning):
            message = as_message(warning.message.args[0]) if isinstance(warning.message, Warning) else Message("")
            warnings.warn(_redact(message, case, store), InputWarning, stacklevel=4)


def _redact(message: Message, case: str, store: Path) -> Message:
    public = message.redact(private_note(store))
    return restore_message(f"{case}: {public}", public.public)


def _restore_row(private: Mapping[str, str], public: Mapping[str, str] | None) -> LedgerRow:
    """Joins a row of the private table with its public row, whose reason and warnings are public already."""
    if public is None:
        return LedgerRow.from_columns(private)
    return LedgerRow.from_columns(private, public_reason=public["reason"], public_warnings=public["warnings"])


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    write_text(path, out.getvalue(), is_private=True)

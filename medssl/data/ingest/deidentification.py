"""Veil: what a store tells of the scans it was made from, and what is kept beside it for its owner alone."""

import csv
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from medssl.data.ingest import file_ledger as ledger
from medssl.data.ingest.dataset_layouts import Layout
from medssl.data.ingest.file_ledger import Row, refused
from medssl.data.ingest.safe_messages import known
from medssl.data.ingest.source import Source, pseudonym
from medssl.data.manifest import Case
from medssl.errors import BadInput, Doubt
from medssl.files import write_text
from medssl.io.dicom.deidentify import OLDEST_YEARS, Key, structure

HIDDEN = "hidden-"
BURNED_IN = "text may stand in the pixels: such images are not de-identified"


@dataclass(frozen=True)
class Open:
    """Names, paths and reasons as they are."""

    store: Path
    key_file: Path | None = None

    @property
    def mark(self) -> str:
        """What tells in the store's card which key was used; empty without one."""
        return ""

    def begin(self, new: bool, mark: str) -> None:
        """Refuses a store whose names are hidden; `mark` is that of its card."""
        if mark:
            raise BadInput(f"{self.store}: its names are hidden; leave out --no-deidentify or use another --out")

    @property
    def records(self) -> Path:
        """Where it is written down which cases are done."""
        return self.store / "records"

    def over(self, found: Layout) -> Layout:
        """What was found, as the store names it."""
        return found

    def where(self, source: str) -> str:
        """Where a case was read from, as the manifest tells it."""
        return source

    def said(self, reason: str) -> str:
        """What the store, and the terminal, tell of a reason or of a doubt."""
        return reason

    def write(self, rows: Iterable[Row], sources: Mapping[str, str]) -> tuple[Row, ...]:
        """Writes the ledger and gives its rows; `sources` are the places that the cases were read from."""
        told = tuple(rows)
        ledger.write(self.store / "ledger.csv", told)
        return told


@dataclass(frozen=True)
class Veil(Open):
    """Pseudonyms in the place of names and paths; what they stand for lies in the private folder beside the store.

    Cases of published layouts keep their names unless `hide_names`; `own_patients` are those of the user's own table.
    """

    hide_names: bool = False
    own_patients: bool = False

    @property
    def mark(self) -> str:
        """What tells in the store's card which key was used."""
        return self._key().pseudonym("mark", "")

    def begin(self, new: bool, mark: str) -> None:
        """Makes the private folder and, for a new store, its key; refuses a store of another key or of none."""
        if not new and not mark:
            raise BadInput(f"{self.store}: its names are not hidden; add --no-deidentify or use another --out")
        folder = private(self.store)
        folder.mkdir(mode=0o700, exist_ok=True)
        if new and self.key_file == folder / "key" and not self.key_file.exists():
            Key.make(self.key_file)
        if not new and mark != self.mark:
            raise BadInput(f"{self.store}: was not made with {self.key_file}; give its key with --key FILE")

    @property
    def records(self) -> Path:
        """Where it is written down which cases are done: not in the store, as real paths stand there."""
        return private(self.store) / "records"

    def over(self, found: Layout) -> Layout:
        """Cases under pseudonyms; those with text in their pixels are refused."""
        key = self._key()
        burned = [row for s in found.sources if s.burned_in for row in refused(s.files, BURNED_IN)]
        renamed = {s.id: self._renamed(s, key) for s in found.sources if not s.burned_in}
        drawn = any(s.series and s.label for s in found.sources)
        labels = {n: structure(name, key) if drawn else name for n, name in found.labels.items()}
        present = {renamed[case].id: classes for case, classes in found.present.items() if case in renamed}
        return Layout(list(renamed.values()), [*found.rows, *burned], labels, present, found.regions)

    def where(self, source: str) -> str:
        """A pseudonym of the place and, of a DICOM series, one of the series too."""
        place, hash_mark, series = source.partition("#")
        key = self._key()
        return HIDDEN + key.pseudonym("place", place) + (hash_mark and "#" + key.pseudonym("series", series))

    def said(self, reason: str) -> str:
        """The part of a reason or a doubt that stands on the list of harmless phrases."""
        return _said(reason, self.store)

    def write(self, rows: Iterable[Row], sources: Mapping[str, str]) -> tuple[Row, ...]:
        """Writes the private tables first, so that whatever the store names can be found."""
        key = self._key()
        named = sorted((HIDDEN + key.pseudonym("file", row.path), row) for row in rows)
        folder = private(self.store)
        _write(folder / "files.csv", ("name", *NAMES), ((name, *astuple(row)) for name, row in named))
        _write(folder / "sources.csv", ("case", "source"), sorted(sources.items()))
        return super().write((self._row(name, row) for name, row in named), sources)

    def _row(self, name: str, row: Row) -> Row:
        return replace(row, path=name, reason=self.said(row.reason), doubts=self.said(row.doubts))

    def _renamed(self, source: Source, key: Key) -> Source:
        """A case without a name; ages over 89 become 90 and only a listed sex is told."""
        kept = source.published and not self.hide_names
        first = str(source.images[0])
        kind = "image" if source.series is None else source.modalities[0]
        case = source.id.replace(pseudonym(first), key.pseudonym("file", first)) if kept else ""
        own = self.own_patients or not kept
        site = key.pseudonym("site", source.site) if own and source.site else source.site
        if source.series and not self.own_patients:  # of a scanner, the vendor is no secret
            site = f"{source.site.rpartition(' ')[0]} {site[:6]}".strip()
        return replace(
            source,
            id=case or f"{kind}-{key.pseudonym('case', source.id)}",
            patient=key.pseudonym("patient", source.patient) if own else source.patient,
            site=site,
            age_years=source.age_years and min(source.age_years, OLDEST_YEARS + 1),
            sex=source.sex if source.sex in ("M", "F", "O") else "",
        )

    def _key(self) -> Key:
        assert self.key_file is not None
        return Key.read(self.key_file)


NAMES = tuple(f.name for f in fields(Row))


def private(store: Path) -> Path:
    """The folder beside a store that only its owner may read: the key, and what the pseudonyms stand for."""
    return store.absolute().with_name(f"{store.absolute().name}.private")


def real_sources(cases: Iterable[Case], store: Path) -> dict[str, str]:
    """The place that each case of a store was read from, behind the veil."""
    told = {case.id: case.source for case in cases}
    hidden = {case for case, source in told.items() if source.startswith(HIDDEN)}
    found = {row["case"]: row["source"] for row in _read(private(store) / "sources.csv")} if hidden else {}
    if lost := sorted(hidden - set(found)):
        raise BadInput(f"{lost[0]}: where it was read from is private; put {private(store)} back, beside the store")
    return told | {case: found[case] for case in hidden}


@contextmanager
def hushed(case: str, hidden: bool, store: Path) -> Iterator[None]:
    """What reading a case from its hidden place says, faults and doubts, without names."""
    if not hidden:
        yield
        return
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
    except BadInput as error:
        raise BadInput(f"{case}: {_said(str(error), store)}") from None
    for warning in heard:
        if issubclass(warning.category, Doubt):
            warnings.warn(f"{case}: {_said(str(warning.message), store)}", Doubt, stacklevel=4)


def real_rows(store: Path) -> list[Row]:
    """The ledger of a store, behind the veil."""
    told = ledger.read(store / "ledger.csv")
    if not any(row.path.startswith(HIDDEN) for row in told):
        return told
    found = _read(private(store) / "files.csv")
    if not found:
        raise BadInput(f"{store}: its files are told in {private(store)}, which is not there; put it back")
    rows: list[Any] = [{name: row[name] for name in NAMES} for row in found]
    return [Row(**row) for row in rows]


def _said(text: str, store: Path) -> str:
    return known(text, f"see {private(store).name}/files.csv")


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
        return list(csv.DictReader(handle))


def _write(path: Path, names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([names, *rows])
    write_text(path, out.getvalue())

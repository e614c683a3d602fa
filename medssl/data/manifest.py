"""Reads and writes the manifest of a store: its cases, each with its patient, files and split."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medssl.data.storage.arrow_rows import ArrowRows, read_metadata, write_rows
from medssl.data.storage.object_cache import is_url
from medssl.errors import BadInput
from medssl.files import sha256, write_text

REQUIRED_COLUMNS = ("id", "patient", "image", "modality", "unit", "split", "source", "sha256", "warnings")
OPTIONAL_COLUMNS = ("site", "sex", "label_sha256")
ARROW_SUFFIX = ".arrow"  # of the copy of a long manifest that opens at once and that processes share
MIN_ARROW_CASES = 5000
CSV_SHA256 = "csv_sha256"


@dataclass(frozen=True)
class Case:
    """One image of one patient. Paths are relative to the manifest's folder; addresses of an object store are complete.

    `study_day` counts days from a reference day of the patient, which may be secret: only differences between cases
    of one patient carry meaning.
    """

    id: str
    patient: str
    image: str
    label: str | None
    modality: str
    unit: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    channels: int
    split: str
    source: str
    sha256: str
    warnings: str = ""
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    label_sha256: str = ""
    study_day: int | None = None


@dataclass(frozen=True)
class Manifest:
    """Cases in a fixed order, and the folder that their paths are relative to.

    The cases of a long manifest stay on the disk, and each is made at its access.
    """

    cases: Sequence[Case]
    folder: Path

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Reads a manifest.csv, or in its place the Arrow file in the same folder that `write` made of it.

        Raises:
            BadInput: The file is missing or not a table, a row cannot be parsed (the message names its line), or two
                cases share an id.
        """
        path = Path(path)
        if (path / "manifest.csv").is_file():
            raise BadInput(f"{path}: is a folder; give the manifest in it, {path / 'manifest.csv'}")
        if not path.is_file():
            raise BadInput(f"{path}: no manifest; `medssl ingest SCANS --out STORE` writes STORE/manifest.csv")
        arrow = path.with_suffix(ARROW_SUFFIX)
        if arrow.is_file() and read_metadata(arrow).get(CSV_SHA256) == sha256(path):
            return cls(ArrowRows(arrow, Case), path.parent)
        try:
            with path.open(newline="", encoding="utf-8") as handle:
                rows = list(csv.DictReader(handle))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"{path}: not a table ({error}); give a store's manifest.csv, or a folder") from None
        cases = tuple(_parse_case(row, f"{path}:{line}") for line, row in enumerate(rows, 2))
        repeated = sorted(id_ for id_, count in Counter(case.id for case in cases).items() if count > 1)
        if repeated:
            raise BadInput(f"{path}: cases listed twice: {', '.join(repeated)}; ids must be unique")
        return cls(cases, path.parent)

    def write(self, path: Path | str) -> None:
        """Writes the manifest atomically as CSV, and a long one also as an Arrow file with the same name."""
        path = Path(path)
        write_text(path, self._to_csv())
        if len(self.cases) >= MIN_ARROW_CASES:
            write_rows(path.with_suffix(ARROW_SUFFIX), self.cases, {CSV_SHA256: sha256(path)})

    def in_split(self, split: str) -> "Manifest":
        """Returns the cases of one split."""
        return self.select([n for n, value in enumerate(self.column("split")) if value == split])

    def with_labels(self) -> "Manifest":
        """Returns the cases that have a label."""
        return self.select([n for n, label in enumerate(self.column("label")) if label])

    def select(self, indices: Sequence[int]) -> "Manifest":
        """Returns the cases at some places, in that order."""
        if isinstance(self.cases, ArrowRows):
            return replace(self, cases=self.cases.select(indices))
        return replace(self, cases=tuple(self.cases[n] for n in indices))

    def column(self, name: str) -> list[Any]:
        """Returns one property of all cases."""
        if isinstance(self.cases, ArrowRows):
            return self.cases.column(name)
        return [getattr(case, name) for case in self.cases]

    def head(self, count: int) -> "Manifest":
        """Returns the first `count` cases, or all cases if there are fewer."""
        return replace(self, cases=self.cases[:count])

    def path(self, case: Case) -> Path:
        """Returns the path of a case's image, or raises BadInput if it is in an object store."""
        return self._local_path(case.image)

    def label_path(self, case: Case) -> Path:
        """Returns the path of a case's label, or raises BadInput if there is none, or none on this machine."""
        return self._local_path(require_label(case))

    def digest(self) -> str:
        """Returns a SHA-256 of ids, patients, splits and voxels of images and labels; the folder has no influence."""
        labels = [label or "" for label in self.column("label")]
        names = ("id", "patient", "split", "sha256")
        columns = [*(self.column(name) for name in names), labels, self.column("label_sha256")]
        return _hash_rows(sorted(zip(*columns, strict=True)))

    def split_digest(self) -> str:
        """Returns a SHA-256 of which case and patient is in which split."""
        columns = [self.column(name) for name in ("id", "patient", "split")]
        return _hash_rows(sorted(zip(*columns, strict=True)))

    def _local_path(self, location: str) -> Path:
        if is_url(location):
            raise BadInput(f"{location}: is in an object store, and this command reads paths; give the store on a disk")
        return self.folder / location

    def _to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [field.name for field in fields(Case)]
        writer.writerow(names)
        for case in self.cases:
            writer.writerow([_format_cell(getattr(case, name)) for name in names])
        return out.getvalue()


def require_label(case: Case) -> str:
    """Returns the location of a case's label, or raises BadInput if the case has none."""
    if case.label is None:
        raise BadInput(f"{case.id}: has no label; drop the case with `Manifest.with_labels` or label it")
    return case.label


def _hash_rows(rows: list[tuple[str, ...]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _format_cell(value: object) -> object:
    """Formats a tuple as "1x1x2.5" and leaves any other value as it is."""
    return "x".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value


def _parse_case(row: dict[str, str], location: str) -> Case:
    """Parses a row of manifest.csv; `location` is its file and line for the error message."""
    try:
        a, b, c = (float(v) for v in row["spacing_mm"].split("x"))
        i, j, k = (int(v) for v in row["shape"].split("x"))
        texts = {n: row[n] for n in REQUIRED_COLUMNS} | {n: row.get(n) or "" for n in OPTIONAL_COLUMNS}
        age, day = row.get("age_years"), row.get("study_day")
        return Case(
            **texts, label=row["label"] or None, spacing_mm=(a, b, c), shape=(i, j, k),
            channels=int(row["channels"]), age_years=float(age) if age else None, study_day=int(day) if day else None,
        )  # fmt: skip
    except (KeyError, ValueError, AttributeError) as error:
        raise BadInput(f"{location}: not a case ({error}); run `medssl ingest` to write the manifest again") from None

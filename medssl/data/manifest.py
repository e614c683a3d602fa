"""Reads and writes the manifest of a store: its cases, each with its patient, files and split."""

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from medssl.errors import BadInput
from medssl.files import write_text

REQUIRED_COLUMNS = ("id", "patient", "image", "modality", "unit", "split", "source", "sha256", "warnings")
OPTIONAL_COLUMNS = ("site", "sex", "label_sha256")


@dataclass(frozen=True)
class Case:
    """One image of one patient. Paths are relative to the manifest's folder.

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
    """Cases in a fixed order, and the folder that their paths are relative to."""

    cases: tuple[Case, ...]
    folder: Path

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Reads a manifest.csv.

        Raises:
            BadInput: The file is missing or not a table, a row cannot be parsed (the message names its line), or two
                cases share an id.
        """
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"{path}: no manifest; `medssl ingest SCANS --out STORE` writes STORE/manifest.csv")
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
        """Writes the manifest atomically."""
        write_text(path, self._to_csv())

    def in_split(self, split: str) -> "Manifest":
        """Returns the cases of one split."""
        return replace(self, cases=tuple(case for case in self.cases if case.split == split))

    def with_labels(self) -> "Manifest":
        """Returns the cases that have a label."""
        return replace(self, cases=tuple(case for case in self.cases if case.label))

    def head(self, count: int) -> "Manifest":
        """Returns the first `count` cases, or all cases if there are fewer."""
        return replace(self, cases=self.cases[:count])

    def path(self, case: Case) -> Path:
        """Returns the path of a case's image."""
        return self.folder / case.image

    def label_path(self, case: Case) -> Path:
        """Returns the path of a case's label, or raises BadInput if the case has none."""
        if case.label is None:
            raise BadInput(f"{case.id}: has no label; drop the case with `Manifest.with_labels` or label it")
        return self.folder / case.label

    def digest(self) -> str:
        """Returns a SHA-256 of ids, patients, splits and voxels of images and labels; the folder has no influence."""
        return _hash_rows(
            sorted((c.id, c.patient, c.split, c.sha256, c.label or "", c.label_sha256) for c in self.cases)
        )

    def split_digest(self) -> str:
        """Returns a SHA-256 of which case and patient is in which split."""
        return _hash_rows(sorted((case.id, case.patient, case.split) for case in self.cases))

    def _to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [field.name for field in fields(Case)]
        writer.writerow(names)
        for case in self.cases:
            writer.writerow([_format_cell(asdict(case)[name]) for name in names])
        return out.getvalue()


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

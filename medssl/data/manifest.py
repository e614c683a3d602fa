"""Manifest: the cases of a store, each with its patient, its files and its split."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from medssl.errors import BadInput
from medssl.files import write_text

PLAIN = ("id", "patient", "image", "modality", "unit", "split", "source", "sha256", "doubts")
LATER = ("site", "sex", "label_sha256")  # columns that a manifest may lack


@dataclass(frozen=True)
class Case:
    """One image of one patient; paths are relative to the manifest's folder.

    `day` is that of the study, counted from a day of the patient's own that may be secret: only differences tell.
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
    doubts: str = ""
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    label_sha256: str = ""
    day: int | None = None


@dataclass(frozen=True)
class Manifest:
    """Cases in a fixed order, and the folder their paths start from."""

    cases: tuple[Case, ...]
    folder: Path

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Reads a manifest.csv; a row that is no case is named by its line."""
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"{path}: no manifest; `medssl ingest SCANS --out STORE` writes STORE/manifest.csv")
        try:
            with path.open(newline="", encoding="utf-8") as handle:
                rows = list(csv.DictReader(handle))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"{path}: not a table ({error}); give a store's manifest.csv, or a folder") from None
        cases = tuple(_case(row, f"{path}:{line}") for line, row in enumerate(rows, 2))
        repeated = sorted({c.id for c in cases if sum(c.id == d.id for d in cases) > 1}) if _twice(cases) else []
        if repeated:
            raise BadInput(f"{path}: cases listed twice: {', '.join(repeated)}; ids must be unique")
        return cls(cases, path.parent)

    def write(self, path: Path | str) -> None:
        """Writes the manifest atomically."""
        write_text(path, self._text())

    def by(self, split: str) -> "Manifest":
        """The cases of one split."""
        return replace(self, cases=tuple(c for c in self.cases if c.split == split))

    def labelled(self) -> "Manifest":
        """The cases that have a label."""
        return replace(self, cases=tuple(c for c in self.cases if c.label))

    def first(self, n: int) -> "Manifest":
        """The first `n` cases, or all there are."""
        return replace(self, cases=self.cases[:n])

    def few(self, n: int, seed: int) -> "Manifest":
        """`n` labelled cases, one patient after the other; for one seed, fewer are always a part of more."""
        pool = self.labelled().cases
        if n > len(pool):
            raise BadInput(f"{n} labelled cases asked for, {len(pool)} are there; lower `labels` or label more")
        order = shuffled({c.patient for c in pool}, seed)
        rank = {patient: i for i, patient in enumerate(order)}
        chosen = {c.id for c in sorted(pool, key=lambda c: (rank[c.patient], c.id))[:n]}
        return replace(self, cases=tuple(c for c in pool if c.id in chosen))

    def split(self, shares: dict[str, float], seed: int) -> "Manifest":
        """Every patient in one split; each split has its share of the patients of every site, to within one patient.

        A patient with cases of several sites counts for the first of them. The same seed gives the same split.
        """
        sites = {c.patient: c.site for c in sorted(self.cases, key=lambda c: c.site, reverse=True)}
        at = {site: shuffled((p for p in sites if sites[p] == site), seed) for site in sorted(set(sites.values()))}
        counts = allotted([len(of_site) for of_site in at.values()], list(shares.values()))
        patients = [p for of_site in at.values() for p in of_site]
        dealt = [name for row in counts for name, n in zip(shares, row, strict=True) for _ in range(n)]
        of = dict(zip(patients, dealt, strict=True))
        return replace(self, cases=tuple(replace(c, split=of[c.patient]) for c in self.cases))

    def fold(self, number: int, folds: int, seed: int) -> "Manifest":
        """Cross-validation: fold `number` (from 0) of the labelled patients is split val, the others are split train.

        Split test stays as it is. For one seed every patient is in val in one fold; each fold has its share of a site.
        """
        pool = tuple(c for c in self.labelled().cases if c.split != "test")
        patients = len({c.patient for c in pool})
        if not (0 <= number < folds and 2 <= folds <= patients):
            raise BadInput(
                f"fold {number} of {folds}: {patients} labelled patients are not in split test; folds go from 0 on, "
                "and there are at least two, each with a patient"
            )
        dealt = replace(self, cases=pool).split({str(n): 1.0 for n in range(folds)}, seed)
        parts = {c.patient: "val" if c.split == str(number) else "train" for c in dealt.cases}
        cases = (c if c.split == "test" else replace(c, split=parts.get(c.patient, c.split)) for c in self.cases)
        return replace(self, cases=tuple(cases))

    def path(self, case: Case) -> Path:
        """Where a case's image is stored."""
        return self.folder / case.image

    def label_path(self, case: Case) -> Path:
        """Where a case's label is stored."""
        if case.label is None:
            raise BadInput(f"{case.id}: has no label; leave it out with `.labelled()` or label it")
        return self.folder / case.label

    def digest(self) -> str:
        """One hash over ids, patients, splits and the voxels of images and labels, wherever the store lies."""
        return _hash(sorted((c.id, c.patient, c.split, c.sha256, c.label or "", c.label_sha256) for c in self.cases))

    def split_digest(self) -> str:
        """One hash over who is in which split."""
        return _hash(sorted((c.id, c.patient, c.split) for c in self.cases))

    def _text(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [f.name for f in fields(Case)]
        writer.writerow(names)
        for case in self.cases:
            writer.writerow([_cell(asdict(case)[name]) for name in names])
        return out.getvalue()


def allotted(sizes: Sequence[int], shares: Sequence[float]) -> list[list[int]]:
    """How many of each group go to each share: the exact number rounded down or up, so that totals are met too."""
    parts = np.array(shares) / sum(shares)
    owed, counts = np.zeros(len(parts)), []
    for size in sizes:
        exact = parts * size
        sure = np.floor(exact + 1e-9)
        owed = owed + exact - sure
        open_to = exact - sure > 1e-9
        order = sorted(np.flatnonzero(open_to), key=lambda n: (-round(float(owed[n]), 9), -n))
        extra = np.isin(np.arange(len(parts)), order[: size - int(sure.sum())])
        owed = owed - extra
        counts.append([int(v) for v in sure + extra])
    return counts


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that follows from each name and the seed alone."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def _hash(rows: list[tuple[str, ...]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _twice(cases: tuple[Case, ...]) -> bool:
    return len({c.id for c in cases}) < len(cases)


def _cell(value: object) -> object:
    return "x".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value


def _case(row: dict[str, str], where: str) -> Case:
    try:
        a, b, c = (float(v) for v in row["spacing_mm"].split("x"))
        i, j, k = (int(v) for v in row["shape"].split("x"))
        plain = {n: row[n] for n in PLAIN} | {n: row.get(n) or "" for n in LATER}
        age, day = row.get("age_years"), row.get("day")
        return Case(
            **plain, label=row["label"] or None, spacing_mm=(a, b, c), shape=(i, j, k),
            channels=int(row["channels"]), age_years=float(age) if age else None, day=int(day) if day else None,
        )  # fmt: skip
    except (KeyError, ValueError, AttributeError) as error:
        raise BadInput(f"{where}: not a case ({error}); run `medssl ingest` to write the manifest anew") from None

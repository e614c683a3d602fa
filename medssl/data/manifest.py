"""Manifest: the cases of a store, each with its patient, its files and its split."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from medssl.errors import BadInput
from medssl.files import write_text


@dataclass(frozen=True)
class Case:
    """One image of one patient; paths are relative to the manifest's folder."""

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
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
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
        order = _shuffled({c.patient for c in pool}, seed)
        rank = {patient: i for i, patient in enumerate(order)}
        chosen = {c.id for c in sorted(pool, key=lambda c: (rank[c.patient], c.id))[:n]}
        return replace(self, cases=tuple(c for c in pool if c.id in chosen))

    def split(self, shares: dict[str, float], seed: int) -> "Manifest":
        """Every patient in one split, in the given shares of patients; the same seed gives the same split."""
        order = _shuffled({c.patient for c in self.cases}, seed)
        bounds = np.round(np.cumsum(list(shares.values())) / sum(shares.values()) * len(order)).astype(int)
        of = {p: list(shares)[int(np.searchsorted(bounds, i, side="right"))] for i, p in enumerate(order)}
        return replace(self, cases=tuple(replace(c, split=of[c.patient]) for c in self.cases))

    def path(self, case: Case) -> Path:
        """Where a case's image is stored."""
        return self.folder / case.image

    def label_path(self, case: Case) -> Path:
        """Where a case's label is stored."""
        if case.label is None:
            raise BadInput(f"{case.id}: has no label; leave it out with `.labelled()` or label it")
        return self.folder / case.label

    def digest(self) -> str:
        """One hash over ids, patients, splits and voxels, whatever folder the store lies in."""
        rows = sorted((c.id, c.patient, c.split, c.sha256, c.label or "") for c in self.cases)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def _text(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [f.name for f in fields(Case)]
        writer.writerow(names)
        for case in self.cases:
            writer.writerow([_cell(asdict(case)[name]) for name in names])
        return out.getvalue()


def _twice(cases: tuple[Case, ...]) -> bool:
    return len({c.id for c in cases}) < len(cases)


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def _cell(value: object) -> object:
    return "x".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value


def _case(row: dict[str, str], where: str) -> Case:
    try:
        a, b, c = (float(v) for v in row["spacing_mm"].split("x"))
        i, j, k = (int(v) for v in row["shape"].split("x"))
        plain = {n: row[n] for n in ("id", "patient", "image", "modality", "unit", "split", "source", "sha256", "doubts")}
        return Case(**plain, label=row["label"] or None, spacing_mm=(a, b, c), shape=(i, j, k), channels=int(row["channels"]))
    except (KeyError, ValueError, AttributeError) as error:
        raise BadInput(f"{where}: not a case ({error}); run `medssl ingest` to write the manifest anew") from None

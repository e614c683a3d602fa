"""Lesions found by a sweep's cells: kept beside their Dice, and held against the reference arm's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medssl.errors import BadInput
from medssl.files import write_json
from medssl.metrics import lesions
from medssl.metrics.detection_scores import Detected
from medssl.metrics.lesions import Outcome
from medssl.metrics.statistics import Interval, crossed_interval, swapped_p

NAME = "lesions.json"
RULES = ("picai", "luna")
METRICS: dict[str, tuple[str, Callable[[Sequence[Outcome]], float]]] = {
    "sensitivity at 1 false alarm": ("picai", lambda of: float(lesions.sensitivity_at(of, [1.0])[0])),
    "CPM": ("luna", lesions.cpm),
}


@dataclass(frozen=True)
class Found:
    """One kind of lesion in the test cases of one cell: by each rule an outcome a case."""

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    outcomes: dict[str, tuple[Outcome, ...]]

    def measured(self, metric: str, at: Int[np.ndarray, "n"]) -> float:
        """A metric over some case numbers."""
        rule, statistic = METRICS[metric]
        return statistic([self.outcomes[rule][n] for n in at])

    def swapped(self, other: "Found", some: Bool[np.ndarray, "cases"]) -> "Found":
        """The same with the other's outcomes in some of the cases."""
        pairs = {rule: zip(mine, other.outcomes[rule], some, strict=True) for rule, mine in self.outcomes.items()}
        return replace(self, outcomes={rule: tuple(b if yes else a for a, b, yes in of) for rule, of in pairs.items()})


def write(folder: Path, detected: Mapping[str, Sequence[Detected]]) -> None:
    """Keeps what is needed to measure and to compare: of every case and rule the scores of hits and false alarms."""
    write_json(folder / NAME, {kind: [_row(one) for one in cases] for kind, cases in detected.items()})


def read(folder: Path, kind: str) -> Found:
    """What `write` kept of one kind."""
    path = folder / NAME
    rows = json.loads(path.read_text()).get(kind) if path.is_file() else None
    if rows is None:
        raise BadInput(f"{path}: tells nothing of {kind}; delete {folder / 'cases.csv'}, and the cell is tested again")
    cases, patients = (tuple(row[key] for row in rows) for key in ("case", "patient"))
    outcomes = {rule: tuple(_outcome(row[rule], row["diameters_mm"]) for row in rows) for rule in RULES}
    return Found(cases, patients, outcomes)


def score(metric: str, mine: Sequence[Found]) -> Interval:
    """A metric over the test cases, with patients crossed with the seeds that `mine` are of."""
    return crossed_interval(lambda seed, at: mine[seed].measured(metric, at), len(mine), _patients(mine))


def gap(metric: str, mine: Sequence[Found], theirs: Sequence[Found]) -> tuple[Interval, float]:
    """How far a metric of one arm is above that of another, paired by case and seed, and the p of swapping patients."""
    patients, both = _patients([*mine, *theirs]), list(zip(mine, theirs, strict=True))
    every = np.arange(len(patients))

    def apart(seed: int, at: Int[np.ndarray, "n"]) -> float:
        return mine[seed].measured(metric, at) - theirs[seed].measured(metric, at)

    def swapped(some: Bool[np.ndarray, "cases"]) -> float:
        pairs = [(a.swapped(b, some), b.swapped(a, some)) for a, b in both]
        return float(np.mean([a.measured(metric, every) - b.measured(metric, every) for a, b in pairs]))

    return crossed_interval(apart, len(mine), patients), swapped_p(swapped, patients)


def _patients(cells: Sequence[Found]) -> tuple[str, ...]:
    first = cells[0]
    if any((cell.cases, cell.patients) != (first.cases, first.patients) for cell in cells):
        raise BadInput("the cells tested other cases; choose another out")
    return first.patients


def _row(one: Detected) -> dict[str, Any]:
    by = {"picai": one.picai, "luna": one.luna}
    told = {
        rule: {"found": _finite(of.found), "false": of.false.tolist(), "score": of.score} for rule, of in by.items()
    }
    return {"case": one.case, "patient": one.patient, "diameters_mm": one.picai.diameters_mm.tolist(), **told}


def _finite(found: Float[np.ndarray, "r"]) -> list[float | None]:
    """A missed lesion has no score, which JSON calls null."""
    return [score if np.isfinite(score) else None for score in found.tolist()]


def _outcome(told: Mapping[str, Any], diameters_mm: list[float]) -> Outcome:
    found = np.array([-np.inf if score is None else score for score in told["found"]], float)
    return Outcome(found, np.array(told["false"], float), np.array(diameters_mm, float), told["score"])

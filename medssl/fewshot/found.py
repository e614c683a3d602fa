"""Lesions found by a sweep's cells: kept beside their Dice, and held against the reference arm's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medssl.errors import BadInput
from medssl.files import write_json
from medssl.metrics import lesions
from medssl.metrics.detection import Detected
from medssl.metrics.lesions import Outcome
from medssl.metrics.statistics import Interval, crossed_interval, swapped_p

NAME = "lesions.json"
RULES = ("picai", "luna")
METRICS: dict[str, tuple[str, Callable[[Sequence[Outcome]], float]]] = {
    "sensitivity at 1 false alarm": ("picai", lambda of: float(lesions.sensitivity_at(of, [1.0])[0])),
    "CPM": ("luna", lesions.cpm),
}
Cases = dict[str, dict[str, Outcome]]  # case -> rule -> outcome


@dataclass(frozen=True)
class Found:
    """One kind of lesion in the test cases of one cell."""

    patients: dict[str, str]
    cases: Cases


def write(folder: Path, detected: Mapping[str, Sequence[Detected]]) -> None:
    """Keeps what is needed to measure and to compare: of every case and rule the scores of hits and false alarms."""
    write_json(folder / NAME, {kind: [_row(one) for one in cases] for kind, cases in detected.items()})


def read(folder: Path, kind: str) -> Found:
    """What `write` kept of one kind."""
    path = folder / NAME
    rows = json.loads(path.read_text())[kind] if path.is_file() else None
    if rows is None:
        raise BadInput(f"{path}: not there; delete {folder / 'cases.csv'}, and the cell is tested again")
    cases = {row["case"]: {rule: _outcome(row[rule], row["diameters_mm"]) for rule in RULES} for row in rows}
    return Found({row["case"]: row["patient"] for row in rows}, cases)


def score(metric: str, mine: Sequence[Found]) -> Interval:
    """A metric over the test cases, with patients crossed with the seeds that `mine` are of."""
    patients, _, of = _arms(metric, mine)
    return crossed_interval(lambda seed, at: of(mine[seed], at), len(mine), patients)


def gap(metric: str, mine: Sequence[Found], theirs: Sequence[Found]) -> tuple[Interval, float]:
    """How far a metric of one arm is above that of another, paired by case and seed, and the p of swapping patients."""
    patients, cases, of = _arms(metric, [*mine, *theirs])
    every, both = np.arange(len(patients)), list(zip(mine, theirs, strict=True))

    def apart(seed: int, at: Int[np.ndarray, "n"]) -> float:
        return of(mine[seed], at) - of(theirs[seed], at)

    def swapped(some: Bool[np.ndarray, "cases"]) -> float:
        pairs = [_swapped(a, b, [case for case, yes in zip(cases, some, strict=True) if yes]) for a, b in both]
        return float(np.mean([of(a, every) - of(b, every) for a, b in pairs]))

    return crossed_interval(apart, len(mine), patients), swapped_p(swapped, patients)


def _arms(
    metric: str, cells: Sequence[Found]
) -> tuple[list[str], list[str], Callable[[Found, Int[np.ndarray, "n"]], float]]:
    """The patient and the name of each case, and the metric of a cell over some case numbers."""
    patients = cells[0].patients
    if any(cell.patients != patients for cell in cells):
        raise BadInput("the cells tested other cases; choose another out")
    cases = list(patients)
    rule, statistic = METRICS[metric]
    return list(patients.values()), cases, partial(_measured, statistic, rule, cases)


def _measured(
    statistic: Callable[[Sequence[Outcome]], float], rule: str, cases: list[str], cell: Found, at: Int[np.ndarray, "n"]
) -> float:
    return statistic([cell.cases[cases[n]][rule] for n in at])


def _swapped(a: Found, b: Found, some: Sequence[str]) -> tuple[Found, Found]:
    theirs, mine = ({case: of.cases[case] for case in some} for of in (b, a))
    return Found(a.patients, a.cases | theirs), Found(b.patients, b.cases | mine)


def _row(one: Detected) -> dict[str, Any]:
    by = {"picai": one.picai, "luna": one.luna}
    told = {rule: {"found": _finite(of.found), "false": of.false.tolist()} for rule, of in by.items()}
    return {"case": one.case, "patient": one.patient, "diameters_mm": one.picai.diameters_mm.tolist(), **told}


def _finite(found: Float[np.ndarray, "r"]) -> list[float | None]:
    """A missed lesion has no score, which JSON calls null."""
    return [score if np.isfinite(score) else None for score in found.tolist()]


def _outcome(told: Mapping[str, list[Any]], diameters_mm: list[float]) -> Outcome:
    found = np.array([-np.inf if score is None else score for score in told["found"]], float)
    false = np.array(told["false"], float)
    surest = max([0.0, *false.tolist(), *found.tolist()])
    return Outcome(found, false, np.array(diameters_mm, float), surest)

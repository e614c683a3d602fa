"""Stores the lesion scores of a sweep's cells and compares them between arms."""

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
from medssl.metrics.detection_scores import CaseDetections
from medssl.metrics.lesions import MatchResult
from medssl.metrics.statistics import Interval, bootstrap_interval, crossed_permutation_p, estimate_crossed_statistic

LESIONS_FILE = "lesions.json"
RULES = ("picai", "luna")
AUROC = "AUROC"
METRICS: dict[str, tuple[str, Callable[[Sequence[MatchResult]], float]]] = {
    "sensitivity at 1 false alarm": ("picai", lambda outcomes: float(lesions.sensitivity_at(outcomes, [1.0])[0])),
    "CPM": ("luna", lesions.cpm),
    AUROC: ("picai", lambda outcomes: _compute_auroc(outcomes)),
}


@dataclass(frozen=True)
class LesionScores:
    """The matches of one kind of lesion in the test cases of one cell.

    Args:
        cases: The ids of the test cases.
        patients: The patient of each case.
        outcomes: By matching rule ('picai' or 'luna'), the result of each case.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    outcomes: dict[str, tuple[MatchResult, ...]]

    def compute(self, metric: str, indices: Int[np.ndarray, "n"]) -> float:
        """Returns a metric of METRICS over the cases with the given indices, which may repeat."""
        rule, statistic = METRICS[metric]
        return statistic([self.outcomes[rule][n] for n in indices])

    def swap_cases(self, other: "LesionScores", is_swapped: Bool[np.ndarray, "cases"]) -> "LesionScores":
        """Returns the scores with the results of `other` in some of the cases."""
        outcomes = {
            rule: tuple(
                second if swap else first
                for first, second, swap in zip(results, other.outcomes[rule], is_swapped, strict=True)
            )
            for rule, results in self.outcomes.items()
        }
        return replace(self, outcomes=outcomes)


def _compute_auroc(outcomes: Sequence[MatchResult]) -> float:
    """Returns how well the highest score of a case separates cases with lesions from others; NaN without both kinds."""
    return lesions.auroc(np.array([o.has_lesion for o in outcomes]), np.array([o.score for o in outcomes]))


def write_lesion_scores(folder: Path, detected: Mapping[str, Sequence[CaseDetections]]) -> None:
    """Writes the scores of hits and false alarms of each case, for each kind of lesion and each matching rule."""
    write_json(folder / LESIONS_FILE, {kind: [_to_json(case) for case in cases] for kind, cases in detected.items()})


def read_lesion_scores(folder: Path, kind: str) -> LesionScores:
    """Reads the scores of one kind of lesion that `write_lesion_scores` wrote."""
    path = folder / LESIONS_FILE
    rows = json.loads(path.read_text()).get(kind) if path.is_file() else None
    if rows is None:
        raise BadInput(f"{path}: no scores of {kind}; delete {folder / 'cases.csv'}, and the cell is tested again")
    cases, patients = (tuple(row[key] for row in rows) for key in ("case", "patient"))
    outcomes = {rule: tuple(_outcome_from_json(row[rule], row["diameters_mm"]) for row in rows) for rule in RULES}
    return LesionScores(cases, patients, outcomes)


def score_interval(metric: str, cells: Sequence[LesionScores]) -> Interval:
    """Returns a metric over the test cases with its interval over patients and seeds, one cell per seed."""
    return _estimate_interval(
        lambda seed, indices: cells[seed].compute(metric, indices), len(cells), _common_patients(cells)
    )[0]


def compare_arms(metric: str, arm: Sequence[LesionScores], reference: Sequence[LesionScores]) -> tuple[Interval, float]:
    """Returns the difference arm - reference of a metric, paired by case and seed, and its p-value."""
    patients, pairs = _common_patients([*arm, *reference]), list(zip(arm, reference, strict=True))
    all_cases = np.arange(len(patients))

    def compute_difference(seed: int, indices: Int[np.ndarray, "n"]) -> float:
        return arm[seed].compute(metric, indices) - reference[seed].compute(metric, indices)

    def permute_difference(is_swapped: Bool[np.ndarray, "cases"]) -> float:
        swapped = [(a.swap_cases(b, is_swapped), b.swap_cases(a, is_swapped)) for a, b in pairs]
        return float(np.mean([a.compute(metric, all_cases) - b.compute(metric, all_cases) for a, b in swapped]))

    interval, p = _estimate_interval(compute_difference, len(arm), patients)
    return interval, crossed_permutation_p(permute_difference, patients) if p is None else p


def _estimate_interval(
    statistic: Callable[[int, Int[np.ndarray, "n"]], float], seeds: int, patients: tuple[str, ...]
) -> tuple[Interval, float | None]:
    """Returns the mean of a statistic over seeds with its interval, and the p-value of 0 if there are several seeds."""
    if seeds == 1:
        return bootstrap_interval(patients, lambda indices: statistic(0, indices), draws=500), None
    crossed = estimate_crossed_statistic(statistic, seeds, patients)
    return crossed.interval(), crossed.p_value()


def _common_patients(cells: Sequence[LesionScores]) -> tuple[str, ...]:
    first = cells[0]
    if any((cell.cases, cell.patients) != (first.cases, first.patients) for cell in cells):
        raise BadInput("the cells tested other cases; choose another out")
    return first.patients


def _to_json(case: CaseDetections) -> dict[str, Any]:
    results = {
        rule: {
            "found": _scores_to_json(result.hit_scores),
            "false": result.false_positive_scores.tolist(),
            "score": result.score,
        }
        for rule, result in {"picai": case.picai, "luna": case.luna}.items()
    }
    return {"case": case.case, "patient": case.patient, "diameters_mm": case.picai.diameters_mm.tolist(), **results}


def _scores_to_json(hit_scores: Float[np.ndarray, "r"]) -> list[float | None]:
    """Returns the scores with None (null in JSON) for missed lesions, which score -inf."""
    return [score if np.isfinite(score) else None for score in hit_scores.tolist()]


def _outcome_from_json(values: Mapping[str, Any], diameters_mm: list[float]) -> MatchResult:
    hit_scores = np.array([-np.inf if score is None else score for score in values["found"]], float)
    return MatchResult(hit_scores, np.array(values["false"], float), np.array(diameters_mm, float), values["score"])

"""Compares two evaluations of the same cases: paired differences with intervals and p-values."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.metrics.case_scores import LOWER_IS_BETTER
from medssl.metrics.statistics import Interval, compare_paired, is_significant

ALL = "all labels"
Scores = dict[tuple[str, str], float]  # (case, label) -> score


@dataclass(frozen=True)
class ScoreDifference:
    """The paired difference of two evaluations on one label.

    Args:
        label: The class name, or `all labels`.
        first: The mean score of the first evaluation.
        second: The mean score of the second.
        difference: The mean of first - second with its 95 % interval over patients.
        p: The p-value of no difference.
        patients: The number of patients.
        lower_is_better: Whether a lower score is better, as for distances.
    """

    label: str
    first: float
    second: float
    difference: Interval
    p: float
    patients: int
    lower_is_better: bool = False

    def verdict(self, first: str, second: str) -> str:
        """Returns which of the two is better, by the given names, or that no difference is shown."""
        if not is_significant(self.difference, self.p):
            return "no difference shown"
        return f"{first if (self.difference.estimate > 0) != self.lower_is_better else second} is better"


def compare(first: Path, second: Path, metric: str = "dice") -> list[ScoreDifference]:
    """Compares two evaluations on each label and on all labels together.

    Args:
        first: A folder that `medssl evaluate` wrote.
        second: Another one, of the same cases.
        metric: A column of cases.csv.
    """
    (a, patients), (b, _) = read_scores(first, metric), read_scores(second, metric)
    if a.keys() != b.keys():
        unpaired = sorted(f"{case} {label}" for case, label in a.keys() ^ b.keys())
        raise BadInput(
            f"{first} and {second} hold different cases: {', '.join(unpaired[:5])}; evaluate both on the same ones"
        )
    cases = sorted({case for case, _ in a})
    labels = list(dict.fromkeys(label for _, label in a))
    patient_ids = [patients[case] for case in cases]
    groups = [(label, [label]) for label in labels] + [(ALL, labels)]
    return [
        _compare_label(
            name, case_means(a, cases, group), case_means(b, cases, group), patient_ids, metric in LOWER_IS_BETTER
        )
        for name, group in groups
    ]


def read_scores(folder: Path, metric: str) -> tuple[Scores, dict[str, str]]:
    """Reads the scores of an evaluation, by case and label, and the patient of each case.

    Args:
        folder: A folder that `medssl evaluate` wrote.
        metric: A column of its cases.csv.
    """
    path = folder / "cases.csv"
    if not path.is_file():
        raise BadInput(f"{folder}: no evaluation here (cases.csv is missing); `medssl evaluate` writes one")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or metric not in rows[0]:
        raise BadInput(f"{path}: has no {metric!r}; its columns are {', '.join(rows[0]) if rows else 'none'}")
    return {(row["case"], row["label"]): float(row[metric]) for row in rows}, {
        row["case"]: row["patient"] for row in rows
    }


def case_means(scores: Scores, cases: list[str], labels: list[str]) -> Float[np.ndarray, "cases"]:
    """Returns the mean score of each case over its annotated labels; NaN if it has none of them."""
    rows = [[scores[case, label] for label in labels if (case, label) in scores] for case in cases]
    return np.array([np.mean(row) if row else np.nan for row in rows])


def _compare_label(
    label: str,
    a: Float[np.ndarray, "cases"],
    b: Float[np.ndarray, "cases"],
    patient_ids: list[str],
    lower_is_better: bool,
) -> ScoreDifference:
    """Compares two rows of scores over the cases that have both."""
    has_both = np.isfinite(a) & np.isfinite(b)
    patients = [patient for patient, is_paired in zip(patient_ids, has_both, strict=True) if is_paired]
    a, b = a[has_both][None], b[has_both][None]
    difference, p = compare_paired(a, b, patients)
    return ScoreDifference(
        label,
        float(a.mean()),
        float(b.mean()),
        difference,
        p,
        len(set(patients)),
        lower_is_better,
    )

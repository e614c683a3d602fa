"""Two evaluations of the same cases against each other: which is better, by how much, and how sure that is."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.metrics.case_scores import LESS
from medssl.metrics.statistics import Interval, difference, permutation_p, shown

ALL = "all labels"
Scores = dict[tuple[str, str], float]  # (case, label) -> score


@dataclass(frozen=True)
class Gap:
    """The mean score of two arms on one label, and the paired difference with its 95 % interval over patients."""

    label: str
    first: float
    second: float
    gap: Interval
    p: float
    patients: int
    less: bool = False  # the smaller score is the better one

    def verdict(self, first: str, second: str) -> str:
        """In words: which one is better, where that is shown."""
        if not shown(self.gap, self.p):
            return "no difference shown"
        return f"{first if (self.gap.estimate > 0) != self.less else second} is better"


def compare(first: Path, second: Path, metric: str = "dice") -> list[Gap]:
    """One row a label, and one over all of them, from the cases.csv of two evaluations."""
    (a, patients), (b, _) = read(first, metric), read(second, metric)
    if a.keys() != b.keys():
        odd = sorted(f"{case} {label}" for case, label in a.keys() ^ b.keys())
        raise BadInput(f"{first} and {second} hold other cases: {', '.join(odd[:5])}; evaluate both on the same ones")
    cases = sorted({case for case, _ in a})
    labels = list(dict.fromkeys(label for _, label in a))
    owners = [patients[case] for case in cases]
    groups = [(label, [label]) for label in labels] + [(ALL, labels)]
    less = metric in LESS
    return [_gap(name, means(a, cases, some), means(b, cases, some), owners, less) for name, some in groups]


def read(folder: Path, metric: str) -> tuple[Scores, dict[str, str]]:
    """The scores that an evaluation wrote, by case and label, and the patient of each case."""
    path = folder / "cases.csv"
    if not path.is_file():
        raise BadInput(f"{folder}: no evaluation here (cases.csv is missing); `medssl evaluate` writes one")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or metric not in rows[0]:
        raise BadInput(f"{path}: has no {metric!r}; its columns are {', '.join(rows[0]) if rows else 'none'}")
    return {(r["case"], r["label"]): float(r[metric]) for r in rows}, {r["case"]: r["patient"] for r in rows}


def means(scores: Scores, cases: list[str], labels: list[str]) -> Float[np.ndarray, "cases"]:
    """Each case's mean over the labels that were drawn in it; NaN where none was."""
    drawn = [[scores[case, label] for label in labels if (case, label) in scores] for case in cases]
    return np.array([np.mean(values) if values else np.nan for values in drawn])


def _gap(
    label: str, a: Float[np.ndarray, "cases"], b: Float[np.ndarray, "cases"], owners: list[str], less: bool
) -> Gap:
    both = np.isfinite(a) & np.isfinite(b)
    of = [owner for owner, there in zip(owners, both, strict=True) if there]
    a, b = a[both][None], b[both][None]
    return Gap(
        label, float(a.mean()), float(b.mean()), difference(a, b, of), permutation_p(a, b, of), len(set(of)), less
    )

"""Compares the scores of groups of patients: sites, scanners, sexes, ages."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import stats

from medssl.csv_text import neutralize
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.selection.case_groups import group_cases
from medssl.errors import BadInput
from medssl.metrics.case_scores import CaseScore
from medssl.metrics.statistics import Interval, adjust_holm, mean_interval

MEAN_OF_LABELS = "mean of labels"
COLUMNS = (
    "by", "group", "label", "cases", "patients", "dice", "dice_low", "dice_high",
    "difference", "difference_low", "difference_high", "p", "p_holm",
)  # fmt: skip


@dataclass(frozen=True)
class GroupScore:
    """The Dice of one group of cases, and its difference from all other patients.

    Args:
        by: How the cases are grouped.
        group: The name of the group.
        label: The label, or the mean over the labels of each case.
        cases: The number of cases.
        patients: The number of patients.
        dice: The mean over patients with its 95 % interval.
        difference: The mean minus that of the patients of all other groups, with its 95 % interval; None if the group
            or the others have fewer than two patients.
        p: The p-value of no difference.
        p_holm: The p-value adjusted for the number of comparisons by this property.
    """

    by: str
    group: str
    label: str
    cases: int
    patients: int
    dice: Interval
    difference: Interval | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def is_different(self) -> bool:
        """Whether the adjusted p-value is below 0.05."""
        return self.p_holm is not None and self.p_holm < 0.05


def group_labelled(references: References, by: str) -> dict[str, str]:
    """Returns the group of each labelled case of a store; raises BadInput if the references are no manifest."""
    if not references.path.is_file():
        raise BadInput(f"{references.path}: groups need a store; give its manifest.csv with --labels")
    return group_cases(Manifest.read(references.path).with_labels().cases, by)


def compare_groups(rows: Sequence[CaseScore], groups: Mapping[str, str], by: str) -> list[GroupScore]:
    """Returns the scores of each group on the mean of labels and on each label, and their differences from the rest.

    Groups hold different patients, so that the comparison is unpaired: Welch's t interval and test of the means of
    patients (https://doi.org/10.1093/biomet/34.1-2.28), which needs no equal variances. A patient with cases in two
    groups counts in both. The p-values are adjusted by Holm over all groups and labels.

    Args:
        rows: The scores of the cases.
        groups: The group of each case by its id.
        by: How the cases are grouped, for the table.
    """
    labels = list(dict.fromkeys(row.label for row in rows))
    scores = []
    for label in [MEAN_OF_LABELS, *labels] if len(labels) > 1 else labels:
        chosen = [row for row in rows if label in (MEAN_OF_LABELS, row.label)]
        for group in sorted(set(groups.values())):
            inside, outside = (
                [row for row in chosen if (groups[row.case] == group) == member] for member in (True, False)
            )
            if inside:
                scores.append(_score_group(by, group, label, inside, outside))
    adjusted = adjust_holm([float("nan") if score.p is None else score.p for score in scores])
    return [score if score.p is None else replace(score, p_holm=p) for score, p in zip(scores, adjusted, strict=True)]


def groups_to_csv(scores: Sequence[GroupScore]) -> str:
    """Returns the scores as CSV text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for score in scores:
        ends = [(i.estimate, i.low, i.high) if i else ("", "", "") for i in (score.dice, score.difference)]
        names = [neutralize(name) for name in (score.by, score.group, score.label)]
        p_values = ["" if p is None else p for p in (score.p, score.p_holm)]
        writer.writerow([*names, score.cases, score.patients, *ends[0], *ends[1], *p_values])
    return out.getvalue()


def _score_group(
    by: str, group: str, label: str, inside: Sequence[CaseScore], outside: Sequence[CaseScore]
) -> GroupScore:
    means, other_means = _average_patients(inside), _average_patients(outside)
    score = GroupScore(
        by, group, label, len({row.case for row in inside}), len(means), mean_interval(means[None]).clip(0, 1)
    )
    if min(len(means), len(other_means)) < 2:
        return score
    if not means.std() + other_means.std():
        gap = float(means.mean() - other_means.mean())
        return replace(score, difference=Interval(gap, gap, gap), p=float(gap == 0))
    test = stats.ttest_ind(means, other_means, equal_var=False)
    low, high = test.confidence_interval(0.95)
    difference = Interval(float(means.mean() - other_means.mean()), float(low), float(high))
    return replace(score, difference=difference, p=float(test.pvalue))


def _average_patients(rows: Sequence[CaseScore]) -> Float[np.ndarray, "patients"]:
    """Returns the mean Dice of each patient: over cases, and within a case over labels."""
    by_patient: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        by_patient.setdefault(row.patient, {}).setdefault(row.case, []).append(row.dice)
    return np.array([np.mean([np.mean(dice) for dice in cases.values()]) for cases in by_patient.values()])

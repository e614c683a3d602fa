"""Finds the prior study of a patient, matches the findings of both studies and measures their growth."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.reading import Reading
from medssl.review.recist import RecistAxes

MATCH_DISTANCE_MM = 10.0  # findings this close are the same; for large findings, half the diameter if that is more
MAX_SHIFT_MM = 60.0  # the largest shift of the patient between two scans
GROWTH_THRESHOLD_PERCENT = 25.0  # the smallest change of volume that proves growth: Callister et al., see Growth


@dataclass(frozen=True)
class Growth:
    """The change of one lesion between two studies.

    Callister et al., "British Thoracic Society guidelines for the investigation and management of pulmonary nodules",
    2015 (https://doi.org/10.1136/thoraxjnl-2015-207168): two scans differ by up to a quarter without any growth.

    Args:
        volume_percent: The change of the volume in per cent of the prior volume; None if it was not measured twice.
        diameter_percent: The change of the diameter in per cent of the prior diameter; None likewise.
        days: The days between the studies; None if they are unknown.
    """

    volume_percent: float | None
    diameter_percent: float | None
    days: int | None

    @property
    def doubling_days(self) -> float | None:
        """The volume doubling time in days; None if the volume does not grow or the days are unknown.

        Schwartz, "A biomathematical approach to clinical tumor growth", 1961.
        """
        if not self.days or not self.volume_percent or self.volume_percent <= 0:
            return None
        return self.days * math.log(2) / math.log(1 + self.volume_percent / 100)

    @property
    def summary(self) -> str:
        """The change as one line for a reader."""
        changes = ((self.volume_percent, "volume"), (self.diameter_percent, "diameter"))
        parts = [f"{round(percent):+d} % {name}" for percent, name in changes if percent is not None]
        if not parts:
            return "no size was measured in both studies"
        line = ", ".join(parts) + (f" in {self.days} days" if self.days is not None else "")
        if self.volume_percent is not None and abs(self.volume_percent) < GROWTH_THRESHOLD_PERCENT:
            return f"{line}; a change below {GROWTH_THRESHOLD_PERCENT:.0f} % can be measurement variation"
        return line + (f"; volume doubling time {self.doubling_days:.0f} days" if self.doubling_days else "")


def find_prior(index: Index, case: str) -> str | None:
    """Returns the latest earlier study of the same patient with images of the same unit; None if there is none.

    If the days between two studies are unknown, the order of the index decides.
    """
    study, position = index.find_study(case), index.cases.index(case)
    if not study.patient:
        return None
    candidates = []
    for n, other in enumerate(index.cases):
        other_study = index.find_study(other)
        if other != case and other_study.patient == study.patient and index.units[other] == index.units[case]:
            days = study.days_after(other_study)
            if days > 0 if days is not None else n < position:
                candidates.append((days is not None, -(days or 0), n, other))
    return max(candidates)[-1] if candidates else None


def count_days(index: Index, before: str, after: str) -> int | None:
    """Returns the days from one study to another; None if they are unknown."""
    return index.find_study(after).days_after(index.find_study(before))


def apply_verdicts(findings: Iterable[Finding], reading: Reading, keep_rejected: bool = False) -> list[Finding]:
    """Returns the findings with the labels that the reader gave them, without the rejected ones.

    Args:
        findings: The findings of a case.
        reading: The reading of the case.
        keep_rejected: Whether to include the rejected findings.
    """
    decisions = {name: verdict.decision for name, verdict in reading.verdicts.items()}
    labels = {n: v.label for n, v in reading.verdicts.items() if v.decision == "relabel" and v.label}
    return [
        replace(finding, label=labels.get(finding.id, finding.label))
        for finding in findings
        if keep_rejected or decisions.get(finding.id) != "reject"
    ]


def measure_growth(
    current: Finding,
    prior: Finding,
    days: int | None,
    axes: RecistAxes | None = None,
    prior_axes: RecistAxes | None = None,
) -> Growth:
    """Returns the change of a lesion since the prior study.

    The long axes are compared if a reader measured both, else the diameters of both masks; a measured axis is never
    compared with the diameter of a mask.

    Args:
        current: The finding in the current study.
        prior: The same finding in the prior study.
        days: The days between the studies; None if they are unknown.
        axes: The axes that the reader measured in the current study.
        prior_axes: The axes that the reader measured in the prior study.
    """
    long_mm = (axes.long_mm, prior_axes.long_mm) if axes and prior_axes else (current.diameter_mm, prior.diameter_mm)
    volume = _compute_change_percent(current.volume_ml, prior.volume_ml)
    return Growth(volume, _compute_change_percent(*long_mm), days)


def match_findings(
    current: Sequence[Finding], prior: Sequence[Finding], max_shift_mm: float = MAX_SHIFT_MM
) -> dict[str, Finding]:
    """Returns the prior finding of each current finding that has one, by the identifier of the current finding.

    Findings match by label and position. Two scans share no origin, so a shift of all prior findings is tried for each
    pair; it is used if it matches more findings than no shift, and at least two. A single lesion must not have moved.

    Args:
        current: The findings of the current study.
        prior: The findings of the prior study.
        max_shift_mm: The largest shift to try; 0 if both lists belong to the same scan.
    """
    best = _assign_findings(current, prior, np.zeros(3))
    for finding in current:
        for candidate in prior:
            shift = np.subtract(candidate.centre_mm, finding.centre_mm, dtype=np.float64)
            if 0 < np.linalg.norm(shift) <= max_shift_mm:
                matches = _assign_findings(current, prior, shift)
                best = matches if len(matches) > max(len(best), 1) else best
    return best


def _assign_findings(
    current: Sequence[Finding], prior: Sequence[Finding], shift_mm: Float[np.ndarray, "3"]
) -> dict[str, Finding]:
    """Matches each current finding, moved by `shift_mm`, to at most one prior finding."""
    if not current or not prior:
        return {}
    centres, prior_centres = (np.array([finding.centre_mm for finding in group]) for group in (current, prior))
    distance_mm = np.linalg.norm(centres[:, None] + shift_mm - prior_centres, axis=-1)
    limit_mm = np.array([[_get_match_distance_mm(finding, other) for other in prior] for finding in current])
    cost = np.where(distance_mm <= limit_mm, distance_mm, 1e6)
    rows, columns = linear_sum_assignment(cost)
    return {current[r].id: prior[c] for r, c in zip(rows, columns, strict=True) if cost[r, c] < 1e6}


def _get_match_distance_mm(finding: Finding, other: Finding) -> float:
    """Returns the largest distance at which two findings match; negative if their labels differ."""
    if finding.label != other.label:
        return -1.0
    return max(MATCH_DISTANCE_MM, finding.diameter_mm / 2, other.diameter_mm / 2)


def _compute_change_percent(current: float, prior: float) -> float | None:
    return 100 * (current / prior - 1) if current > 0 and prior > 0 else None

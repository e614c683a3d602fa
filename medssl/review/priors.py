"""Priors: the earlier study of a patient, which of its findings is which of the later one's, and how each has grown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.reading import Reading
from medssl.review.recist import Axes

APART_MM = 10.0  # how far two findings may lie apart and be one, or half their diameter if that is more
MOVED_MM = 60.0  # how far a patient may lie elsewhere in the scanner
SURE = 25.0  # per cent of volume from which two scans of a nodule tell growth: Callister et al., below


@dataclass(frozen=True)
class Growth:
    """How one lesion changed, in per cent of what it was, and over how many days where those are known.

    Callister et al., "British Thoracic Society guidelines for the investigation and management of pulmonary nodules",
    2015 (https://doi.org/10.1136/thoraxjnl-2015-207168): two scans differ by up to a quarter without any growth.
    """

    volume: float | None
    diameter: float | None
    days: int | None

    @property
    def doubling_days(self) -> float | None:
        """The days in which the volume doubles at this pace; None where it does not grow, or the days are not known.

        Schwartz, "A biomathematical approach to clinical tumor growth", 1961.
        """
        if not self.days or not self.volume or self.volume <= 0:
            return None
        return self.days * math.log(2) / math.log(1 + self.volume / 100)

    @property
    def said(self) -> str:
        """One line for a reader."""
        parts = [
            f"{round(of):+d} % {name}"
            for of, name in ((self.volume, "volume"), (self.diameter, "diameter"))
            if of is not None
        ]
        line = ", ".join(parts) or "no size to compare"
        line += f" in {self.days} days" if self.days is not None else ""
        if self.volume is not None and abs(self.volume) < SURE:
            return f"{line}; under {SURE:.0f} % two scans may differ without growth"
        return line + (f"; volume doubling time {self.doubling_days:.0f} days" if self.doubling_days else "")


def earlier(index: Index, case: str) -> str | None:
    """The latest earlier study of the same patient in the same unit; where days are missing, the one listed before."""
    mine, at = index.study(case), index.cases.index(case)
    if not mine.patient:
        return None
    before = []
    for n, other in enumerate(index.cases):
        theirs = index.study(other)
        if other != case and theirs.patient == mine.patient and index.units[other] == index.units[case]:
            days = mine.days_after(theirs)
            if days > 0 if days is not None else n < at:
                before.append((days is not None, -(days or 0), n, other))
    return max(before)[-1] if before else None


def days_between(index: Index, before: str, after: str) -> int | None:
    """The days from one study to another; None where they are not known."""
    return index.study(after).days_after(index.study(before))


def standing(findings: Iterable[Finding], reading: Reading, rejected: bool = False) -> list[Finding]:
    """The findings under the labels that a reader gave, without those they rejected unless these are wanted too."""
    said = reading.verdicts
    gone = {name for name, verdict in said.items() if verdict.decision == "reject" and not rejected}
    labels = {name: verdict.label for name, verdict in said.items() if verdict.decision == "relabel" and verdict.label}
    kept = (finding for finding in findings if finding.id not in gone)
    return [replace(finding, label=labels.get(finding.id, finding.label)) for finding in kept]


def growth(
    now: Finding, then: Finding, days: int | None, axes: Axes | None = None, earlier_axes: Axes | None = None
) -> Growth:
    """How a lesion changed; nothing is said of a size that nobody measured.

    A diameter that was measured in both studies counts, else that of both masks: one is not compared with the other.
    """
    long_mm = (axes.long_mm, earlier_axes.long_mm) if axes and earlier_axes else (now.diameter_mm, then.diameter_mm)
    return Growth(_per_cent(now.volume_ml, then.volume_ml), _per_cent(*long_mm), days)


def match(now: Sequence[Finding], then: Sequence[Finding], moved_mm: float = MOVED_MM) -> dict[str, Finding]:
    """Which finding of the other list each one is, by label and place.

    Two scans share no origin: a shift is accepted where it brings together more lesions than no shift, and at least
    two; a single lesion must lie where it lay.
    """
    best = _paired(now, then, np.zeros(3))
    for one in now:
        for other in then:
            shift = np.subtract(other.centre_mm, one.centre_mm, dtype=np.float64)
            if 0 < np.linalg.norm(shift) <= moved_mm:
                found = _paired(now, then, shift)
                best = found if len(found) > max(len(best), 1) else best
    return best


def _paired(now: Sequence[Finding], then: Sequence[Finding], shift_mm: Float[np.ndarray, "3"]) -> dict[str, Finding]:
    if not now or not then:
        return {}
    centres, others = (np.array([finding.centre_mm for finding in some]) for some in (now, then))
    apart = np.linalg.norm(centres[:, None] + shift_mm - others, axis=-1)
    reach = np.array([[_reach_mm(one, other) for other in then] for one in now])
    cost = np.where(apart <= reach, apart, 1e6)
    rows, columns = linear_sum_assignment(cost)
    return {now[r].id: then[c] for r, c in zip(rows, columns, strict=True) if cost[r, c] < 1e6}


def _reach_mm(one: Finding, other: Finding) -> float:
    return max(APART_MM, one.diameter_mm / 2, other.diameter_mm / 2) if one.label == other.label else -1.0


def _per_cent(now: float, then: float) -> float | None:
    return 100 * (now / then - 1) if now > 0 and then > 0 else None

"""Lesion detection: candidates matched with lesions, and the curves that follow.

Three ways to match, one result. PI-CAI: Saha et al., "Artificial intelligence and radiologists in prostate cancer
detection on MRI (PI-CAI)", Lancet Oncology 2024 (https://doi.org/10.1016/S1470-2045(24)00220-1). LUNA16: Setio et al.,
"Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules", Medical Image
Analysis 2017 (https://arxiv.org/abs/1612.08012). COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV
2014 (https://arxiv.org/abs/1405.0312).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from medssl.finding import Finding
from medssl.metrics.overlap import box_iou

CPM_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
MAP_IOUS = tuple(np.arange(10, 51, 5) / 100)


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan: the candidates' scores, the lesions' diameters, and how far each candidate overlaps each lesion."""

    scores: Float[np.ndarray, "p"]
    diameters_mm: Float[np.ndarray, "r"]
    overlap: Float[np.ndarray, "p r"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One scan after matching: of each lesion the score that found it (-inf: missed), and the false alarms' scores."""

    found: Float[np.ndarray, "r"]
    false: Float[np.ndarray, "q"]
    diameters_mm: Float[np.ndarray, "r"]
    score: float

    @property
    def ill(self) -> bool:
        """Whether the scan has any lesion."""
        return self.found.size > 0


@dataclass(frozen=True, eq=False)
class Curve:
    """From the strictest threshold to the laxest: sensitivity, precision and false alarms a scan."""

    threshold: Float[np.ndarray, "t"]
    sensitivity: Float[np.ndarray, "t"]
    precision: Float[np.ndarray, "t"]
    false_per_scan: Float[np.ndarray, "t"]


Match = Callable[[Scan], Outcome]


def by_iou(candidates: Sequence[Finding], lesions: Sequence[Finding]) -> Scan:
    """A scan whose overlap is the intersection over union of boxes in mm."""
    overlap = box_iou(*_sides(candidates), *_sides(lesions))
    return Scan(_array([c.score for c in candidates]), _array([f.diameter_mm for f in lesions]), overlap)


def by_centre(candidates: Sequence[Finding], lesions: Sequence[Finding]) -> Scan:
    """A scan whose overlap is 1 where a candidate's centre lies within a lesion's radius, else 0 (LUNA16)."""
    apart = np.linalg.norm(_points(candidates, "centre_mm")[:, None] - _points(lesions, "centre_mm")[None], axis=-1)
    diameters_mm = _array([f.diameter_mm for f in lesions])
    return Scan(_array([c.score for c in candidates]), diameters_mm, (apart < diameters_mm / 2).astype(float))


def hungarian(scan: Scan, least: float = 0.1) -> Outcome:
    """PI-CAI: as many pairs as can be with an overlap of at least `least`, then the largest total overlap.

    A candidate that overlaps a lesion enough, but lost it to another one, is no false alarm.
    """
    worth = np.where(scan.overlap >= least, min(scan.overlap.shape) + scan.overlap, 0)
    candidates, lesions = linear_sum_assignment(worth, maximize=True)
    real = worth[candidates, lesions] > 0
    found = np.full(scan.diameters_mm.shape, -np.inf)
    found[lesions[real]] = scan.scores[candidates[real]]
    return _outcome(scan, found, (worth == 0).all(1))


def luna(scan: Scan, least: float = 0.5) -> Outcome:
    """LUNA16: a lesion is found by the best of all candidates that hit it; none of these is a false alarm."""
    hit = scan.overlap >= least
    found = np.where(hit, scan.scores[:, None], -np.inf).max(0, initial=-np.inf)
    return _outcome(scan, found, ~np.any(hit, axis=1))


def greedy(scan: Scan, least: float) -> Outcome:
    """COCO: from the best score down, each candidate takes the free lesion it overlaps most; duplicates are false."""
    found = np.full(scan.diameters_mm.shape, -np.inf)
    false = np.ones(scan.scores.shape, bool)
    for n in np.argsort(-scan.scores, kind="stable"):
        free = np.where(np.isinf(found) & (scan.overlap[n] >= least), scan.overlap[n], 0)
        if free.size and free.max() > 0:
            found[np.argmax(free)] = scan.scores[n]
            false[n] = False
    return _outcome(scan, found, false)


def curve(outcomes: Sequence[Outcome]) -> Curve:
    """The operating points, one a distinct score. Sensitivity needs lesions: without any it is not a number."""
    found, false = _all(outcomes, "found"), _all(outcomes, "false")
    hits = found[np.isfinite(found)]
    threshold = np.unique(np.concatenate([hits, false]))[::-1]
    true = len(hits) - np.searchsorted(np.sort(hits), threshold)
    alarms = len(false) - np.searchsorted(np.sort(false), threshold)
    sensitivity = true / len(found) if len(found) else np.full(len(true), np.nan)
    return Curve(threshold, sensitivity, true / np.maximum(true + alarms, 1), alarms / max(1, len(outcomes)))


def average_precision(outcomes: Sequence[Outcome]) -> float:
    """The area under precision over sensitivity as a step function; not a number without lesions."""
    points = curve(outcomes)
    if not any(o.ill for o in outcomes):
        return float("nan")
    return float((np.diff(points.sensitivity, prepend=0) * points.precision).sum())


def interpolated_precision(outcomes: Sequence[Outcome]) -> float:
    """COCO's average precision: at 101 sensitivities, the best precision at that sensitivity or above."""
    points = curve(outcomes)
    if not any(o.ill for o in outcomes):
        return float("nan")
    envelope = np.maximum.accumulate(points.precision[::-1])[::-1]
    at = np.searchsorted(points.sensitivity, np.linspace(0, 1, 101))
    return float(np.append(envelope, 0.0)[np.minimum(at, len(envelope))].mean())


def at_ious(scan: Scan, ious: Sequence[float] = MAP_IOUS) -> tuple[Outcome, ...]:
    """A scan matched as COCO does, once for each overlap that a hit may ask for."""
    return tuple(greedy(scan, iou) for iou in ious)


def mean_average_precision(scans: Sequence[tuple[Outcome, ...]]) -> float:
    """COCO's average precision, averaged over the overlaps that a hit may ask for."""
    return float(np.mean([interpolated_precision(outcomes) for outcomes in zip(*scans, strict=True)]))


def sensitivity_at(outcomes: Sequence[Outcome], rates: Sequence[float] = CPM_RATES) -> Float[np.ndarray, "n"]:
    """Sensitivity at so many false alarms a scan: linear between operating points, level after the last (LUNA16)."""
    if not any(o.ill for o in outcomes):
        return np.full(len(rates), np.nan)
    points = curve(outcomes)
    rate = np.concatenate([[0.0], points.false_per_scan])
    return np.interp(rates, rate, np.concatenate([[0.0], points.sensitivity]))


def cpm(outcomes: Sequence[Outcome]) -> float:
    """LUNA16's score: the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms a scan."""
    return float(sensitivity_at(outcomes).mean())


def auroc(ill: Bool[np.ndarray, "n"], score: Float[np.ndarray, "n"]) -> float:
    """How often an ill patient scores above a healthy one, ties counted half; not a number without both."""
    if not ill.any() or ill.all():
        return float("nan")
    ranks, n = rankdata(score), ill.sum()
    return float((ranks[ill].sum() - n * (n + 1) / 2) / (n * (len(ill) - n)))


def threshold_at(outcomes: Sequence[Outcome], rate: float) -> float:
    """The laxest threshold with at most `rate` false alarms a scan; infinity where there is none."""
    points = curve(outcomes)
    kept = points.threshold[points.false_per_scan <= rate]
    return float(kept.min(initial=np.inf))


def sensitivity_by_size(
    outcomes: Sequence[Outcome], threshold: float, edges_mm: Sequence[float]
) -> list[tuple[float, float, int, float]]:
    """Per range of lesion diameters: its bounds, how many lesions it has, and the share found at the threshold."""
    found, diameters = _all(outcomes, "found"), _all(outcomes, "diameters_mm")
    rows = []
    for low, high in pairwise(edges_mm):
        inside = (diameters >= low) & (diameters < high)
        share = float((found[inside] >= threshold).mean()) if inside.any() else float("nan")
        rows.append((float(low), float(high), int(inside.sum()), share))
    return rows


def _outcome(scan: Scan, found: Float[np.ndarray, "r"], false: Bool[np.ndarray, "p"]) -> Outcome:
    return Outcome(found, scan.scores[false], scan.diameters_mm, float(scan.scores.max(initial=0.0)))


def _all(outcomes: Sequence[Outcome], name: str) -> Float[np.ndarray, "n"]:
    return np.concatenate([getattr(o, name) for o in outcomes] or [np.zeros(0)])


def _points(findings: Sequence[Finding], name: str) -> Float[np.ndarray, "n 3"]:
    return _array([getattr(f, name) for f in findings]).reshape(-1, 3)


def _sides(findings: Sequence[Finding]) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    return _points(findings, "low_mm"), _points(findings, "high_mm")


def _array(values: Sequence[object]) -> Float[np.ndarray, "*n"]:
    return np.array(values, float)

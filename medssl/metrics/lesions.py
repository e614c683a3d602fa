"""Matches candidates with lesions by three rules, and computes detection scores from the matches.

PI-CAI: Saha et al., "Artificial intelligence and radiologists in prostate cancer
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
class ScanMatches:
    """The candidates and lesions of one scan before matching: scores, diameters and the overlap of each pair."""

    scores: Float[np.ndarray, "p"]
    diameters_mm: Float[np.ndarray, "r"]
    overlap: Float[np.ndarray, "p r"]


@dataclass(frozen=True, eq=False)
class MatchResult:
    """The result of matching one scan.

    Args:
        hit_scores: The score of the candidate that hit each lesion; -inf for a missed lesion.
        false_positive_scores: The scores of the false positives.
        diameters_mm: The diameter of each lesion.
        score: The highest score of a candidate; 0 without candidates.
    """

    hit_scores: Float[np.ndarray, "r"]
    false_positive_scores: Float[np.ndarray, "q"]
    diameters_mm: Float[np.ndarray, "r"]
    score: float

    @property
    def has_lesion(self) -> bool:
        """Whether the scan has a lesion."""
        return self.hit_scores.size > 0


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Sensitivity, precision and false positives per scan, from the highest threshold to the lowest."""

    threshold: Float[np.ndarray, "t"]
    sensitivity: Float[np.ndarray, "t"]
    precision: Float[np.ndarray, "t"]
    false_per_scan: Float[np.ndarray, "t"]


Match = Callable[[ScanMatches], MatchResult]


def compare_by_iou(candidates: Sequence[Finding], lesions: Sequence[Finding]) -> ScanMatches:
    """Returns the scan with the intersection over union of the boxes in mm as overlap."""
    overlap = box_iou(*_stack_corners(candidates), *_stack_corners(lesions))
    return ScanMatches(_to_array([c.score for c in candidates]), _to_array([f.diameter_mm for f in lesions]), overlap)


def compare_by_centre(candidates: Sequence[Finding], lesions: Sequence[Finding]) -> ScanMatches:
    """Returns the scan with overlap 1 if a candidate's centre lies within a lesion's radius, else 0 (LUNA16)."""
    distance_mm = np.linalg.norm(
        _stack_points(candidates, "centre_mm")[:, None] - _stack_points(lesions, "centre_mm")[None], axis=-1
    )
    diameters_mm = _to_array([f.diameter_mm for f in lesions])
    return ScanMatches(
        _to_array([c.score for c in candidates]), diameters_mm, (distance_mm < diameters_mm / 2).astype(float)
    )


def match_hungarian(scan: ScanMatches, min_overlap: float = 0.1) -> MatchResult:
    """Matches as PI-CAI: the most pairs with an overlap of at least `min_overlap`, then the largest total overlap.

    A candidate that overlaps a lesion enough, but is not matched with it, is no false positive.
    """
    worth = np.where(scan.overlap >= min_overlap, min(scan.overlap.shape) + scan.overlap, 0)
    candidates, lesions = linear_sum_assignment(worth, maximize=True)
    is_hit = worth[candidates, lesions] > 0
    hit_scores = np.full(scan.diameters_mm.shape, -np.inf)
    hit_scores[lesions[is_hit]] = scan.scores[candidates[is_hit]]
    return _build_result(scan, hit_scores, (worth == 0).all(1))


def match_luna(scan: ScanMatches, min_overlap: float = 0.5) -> MatchResult:
    """Matches as LUNA16: a lesion gets the best score of the candidates that hit it; these are no false positives."""
    hit = scan.overlap >= min_overlap
    hit_scores = np.where(hit, scan.scores[:, None], -np.inf).max(0, initial=-np.inf)
    return _build_result(scan, hit_scores, ~np.any(hit, axis=1))


def match_greedy(scan: ScanMatches, min_overlap: float) -> MatchResult:
    """Matches as COCO: in order of score, each candidate takes the free lesion it overlaps most, or is false."""
    hit_scores = np.full(scan.diameters_mm.shape, -np.inf)
    false = np.ones(scan.scores.shape, bool)
    for n in np.argsort(-scan.scores, kind="stable"):
        free = np.where(np.isinf(hit_scores) & (scan.overlap[n] >= min_overlap), scan.overlap[n], 0)
        if free.size and free.max() > 0:
            hit_scores[np.argmax(free)] = scan.scores[n]
            false[n] = False
    return _build_result(scan, hit_scores, false)


def compute_operating_points(outcomes: Sequence[MatchResult]) -> OperatingPoints:
    """Returns the operating point of each distinct score; the sensitivity is NaN without lesions."""
    hit_scores, false = _concatenate(outcomes, "hit_scores"), _concatenate(outcomes, "false_positive_scores")
    hits = hit_scores[np.isfinite(hit_scores)]
    threshold = np.unique(np.concatenate([hits, false]))[::-1]
    true = len(hits) - np.searchsorted(np.sort(hits), threshold)
    alarms = len(false) - np.searchsorted(np.sort(false), threshold)
    sensitivity = true / len(hit_scores) if len(hit_scores) else np.full(len(true), np.nan)
    return OperatingPoints(threshold, sensitivity, true / np.maximum(true + alarms, 1), alarms / max(1, len(outcomes)))


def average_precision(outcomes: Sequence[MatchResult]) -> float:
    """Returns the average precision (area under precision over sensitivity, as steps); NaN without lesions."""
    points = compute_operating_points(outcomes)
    if not any(o.has_lesion for o in outcomes):
        return float("nan")
    return float((np.diff(points.sensitivity, prepend=0) * points.precision).sum())


def interpolated_precision(outcomes: Sequence[MatchResult]) -> float:
    """Returns COCO's average precision: the mean over 101 sensitivities of the best precision at or above each."""
    points = compute_operating_points(outcomes)
    if not any(o.has_lesion for o in outcomes):
        return float("nan")
    envelope = np.maximum.accumulate(points.precision[::-1])[::-1]
    index = np.searchsorted(points.sensitivity, np.linspace(0, 1, 101))
    return float(np.append(envelope, 0.0)[np.minimum(index, len(envelope))].mean())


def match_at_ious(scan: ScanMatches, ious: Sequence[float] = MAP_IOUS) -> tuple[MatchResult, ...]:
    """Matches a scan as COCO does, once for each minimum overlap."""
    return tuple(match_greedy(scan, iou) for iou in ious)


def mean_average_precision(scans: Sequence[tuple[MatchResult, ...]]) -> float:
    """Returns COCO's mAP: the average precision, averaged over the minimum overlaps of `match_at_ious`."""
    return float(np.mean([interpolated_precision(outcomes) for outcomes in zip(*scans, strict=True)]))


def sensitivity_at(outcomes: Sequence[MatchResult], rates: Sequence[float] = CPM_RATES) -> Float[np.ndarray, "n"]:
    """Returns the sensitivity at rates of false positives per scan, interpolated as in LUNA16; NaN without lesions."""
    if not any(o.has_lesion for o in outcomes):
        return np.full(len(rates), np.nan)
    points = compute_operating_points(outcomes)
    rate = np.concatenate([[0.0], points.false_per_scan])
    return np.interp(rates, rate, np.concatenate([[0.0], points.sensitivity]))


def cpm(outcomes: Sequence[MatchResult]) -> float:
    """Returns LUNA16's CPM: the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan."""
    return float(sensitivity_at(outcomes).mean())


def auroc(has_lesion: Bool[np.ndarray, "n"], score: Float[np.ndarray, "n"]) -> float:
    """Returns the area under the ROC curve, ties counted half; NaN unless both kinds of patients occur."""
    if not has_lesion.any() or has_lesion.all():
        return float("nan")
    ranks, n = rankdata(score), has_lesion.sum()
    return float((ranks[has_lesion].sum() - n * (n + 1) / 2) / (n * (len(has_lesion) - n)))


def threshold_at(outcomes: Sequence[MatchResult], rate: float) -> float:
    """Returns the lowest threshold with at most `rate` false positives per scan; infinity if there is none."""
    points = compute_operating_points(outcomes)
    allowed = points.threshold[points.false_per_scan <= rate]
    return float(allowed.min(initial=np.inf))


def sensitivity_by_size(
    outcomes: Sequence[MatchResult], threshold: float, edges_mm: Sequence[float]
) -> list[tuple[float, float, int, float]]:
    """Returns per range of diameters: low and high bound in mm, number of lesions, sensitivity at the threshold."""
    hit_scores, diameters = _concatenate(outcomes, "hit_scores"), _concatenate(outcomes, "diameters_mm")
    rows = []
    for low, high in pairwise(edges_mm):
        inside = (diameters >= low) & (diameters < high)
        sensitivity = float((hit_scores[inside] >= threshold).mean()) if inside.any() else float("nan")
        rows.append((float(low), float(high), int(inside.sum()), sensitivity))
    return rows


def _build_result(scan: ScanMatches, hit_scores: Float[np.ndarray, "r"], false: Bool[np.ndarray, "p"]) -> MatchResult:
    return MatchResult(hit_scores, scan.scores[false], scan.diameters_mm, float(scan.scores.max(initial=0.0)))


def _concatenate(outcomes: Sequence[MatchResult], name: str) -> Float[np.ndarray, "n"]:
    return np.concatenate([getattr(o, name) for o in outcomes] or [np.zeros(0)])


def _stack_points(findings: Sequence[Finding], name: str) -> Float[np.ndarray, "n 3"]:
    return _to_array([getattr(f, name) for f in findings]).reshape(-1, 3)


def _stack_corners(findings: Sequence[Finding]) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    return _stack_points(findings, "low_mm"), _stack_points(findings, "high_mm")


def _to_array(values: Sequence[object]) -> Float[np.ndarray, "*n"]:
    return np.array(values, float)

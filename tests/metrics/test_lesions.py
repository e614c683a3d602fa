"""Lesion metrics against independent reckonings, over random and degenerate scans."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou as monai_box_iou

from medssl.finding import Finding
from medssl.metrics import lesions
from medssl.metrics.lesions import (
    CPM_RATES,
    MatchResult,
    ScanMatches,
    average_precision,
    compare_by_centre,
    compare_by_iou,
    compute_operating_points,
    cpm,
    interpolated_precision,
    match_at_ious,
    match_greedy,
    match_hungarian,
    match_luna,
    mean_average_precision,
    sensitivity_at,
    sensitivity_by_size,
    threshold_at,
)
from medssl.metrics.overlap import component_iou


def auroc(told):
    return lesions.auroc(np.array([o.has_lesion for o in told], bool), np.array([o.score for o in told], float))


def finding(centre, diameter=10.0, score=0.5):
    x, y, z = (float(v) for v in centre)
    r = diameter / 2
    low, high = (x - r, y - r, z - r), (x + r, y + r, z + r)
    return Finding("a", "a", 1, "lesion", (x, y, z), low, high, 1.0, float(diameter), float(score))


def random_pairs(seed, scans=6, most=4):
    """Candidates near lesions and elsewhere, scans without lesions, scans without candidates."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(scans):
        centres = rng.uniform(0, 60, (rng.integers(0, most), 3))
        real = [finding(c, rng.uniform(4, 20), 1.0) for c in centres]
        near = [c + rng.normal(0, 2.5, 3) for c in centres for _ in range(rng.integers(0, 3))]
        far = list(rng.uniform(0, 60, (rng.integers(0, 3), 3)))
        pairs.append(([finding(c, rng.uniform(4, 20), rng.random()) for c in near + far], real))
    return pairs


def outcomes(pairs, match=match_hungarian, scan=compare_by_iou):
    return [match(scan(candidates, real)) for candidates, real in pairs]


seeds = st.integers(0, 100_000)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_hungarian_matching_equals_trying_all(seed):
    rng = np.random.default_rng(seed)
    p, r = (int(n) for n in rng.integers(1, 5, 2))
    overlap = rng.random((p, r)) * (rng.random((p, r)) < 0.6) * 0.3
    scan = ScanMatches(rng.random(p), np.full(r, 5.0), overlap)
    result = match_hungarian(scan)
    ways = ([(c, n) for n, c in enumerate(way) if c < p] for way in permutations([*range(p), *[p] * r], r))
    worth = [[overlap[pair] for pair in way if overlap[pair] >= 0.1] for way in ways]
    most, total = max((len(overlaps), sum(overlaps)) for overlaps in worth)
    used = [int(np.flatnonzero(scan.scores == s)[0]) for s in result.hit_scores[np.isfinite(result.hit_scores)]]
    pairs = list(zip(used, np.flatnonzero(np.isfinite(result.hit_scores)), strict=True))
    assert len(set(used)) == len(used) == most
    assert sum(overlap[pair] for pair in pairs) == pytest.approx(total)
    assert sorted(result.false_positive_scores) == sorted(scan.scores[(overlap < 0.1).all(1)])


def picai_list(pairs):
    """The challenge's list of (is lesion, confidence): a missed lesion is a lesion of confidence 0."""
    rows = []
    for o in outcomes(pairs):
        rows += [(1, s if np.isfinite(s) else 0.0) for s in o.hit_scores] + [(0, s) for s in o.false_positive_scores]
    return rows


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_average_precision_equals_the_challenges_formula(seed):
    """The step integral of precision over recall, precision set to zero at confidence zero."""
    rows = picai_list(random_pairs(seed))
    lesions_there = sum(real for real, _ in rows)
    expected, before = 0.0, 0.0
    for t in sorted({c for _, c in rows if c > 0}, reverse=True):
        true = sum(real for real, c in rows if c >= t)
        recall = true / max(1, lesions_there)
        expected += (recall - before) * true / sum(c >= t for _, c in rows)
        before = recall
    precision = average_precision(outcomes(random_pairs(seed)))
    assert np.isnan(precision) if not lesions_there else precision == pytest.approx(expected)


def toy(seed):
    """Numbered candidates with a score each, and numbered lesions: boxes that touch none of their kind."""
    rng = np.random.default_rng(seed)
    predicted, real = np.zeros((2, 30, 30, 30), int)
    scores, often = [], 0.12 * (seed % 2)
    for corner in np.ndindex(3, 3, 3):
        low, side, chance = np.array(corner) * 10 + 1, rng.integers(2, 6, 3), rng.random()
        if chance < often:
            real[tuple(slice(a, b) for a, b in zip(low, low + side, strict=True))] = real.max() + 1
        for shift in (0, 5)[: int(rng.integers(1, 3))]:  # two candidates may lie on one lesion
            if chance < 0.09 or chance > 0.97:
                start = low + np.array([shift // 2 + shift % 2, 0, 0]) + rng.integers(0, 2, 3) * (shift == 0)
                stop = start + np.array([1 if shift == 0 else 2, *rng.integers(2, 6, 2)])
                predicted[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = predicted.max() + 1
                scores.append(int(rng.integers(1, 40)) / 40)
    return predicted, np.array(scores), real


# picai_eval 1.4.13 (https://github.com/DIAGNijmegen/picai_eval): `evaluate` of these cases, each map of scores beside
# its mask of lesions: average precision, AUROC, lesions found.
PICAI_EVAL = [(0.072953, 0.449495, 15), (0.072865, 0.42, 12), (0.134293, 0.64, 23), (0.142823, 0.45, 25)]


@pytest.mark.parametrize(("number", "reference_scores"), list(enumerate(PICAI_EVAL)))
def test_toy_cases_score_as_in_the_code_of_the_challenge(number, reference_scores):
    cases = [toy(100 * number + n) for n in range(20)]
    scans = [
        ScanMatches(scores, np.full(real.max(), 5.0), component_iou(predicted, real))
        for predicted, scores, real in cases
    ]
    results = [match_hungarian(scan) for scan in scans]
    num_hits = sum(np.isfinite(outcome.hit_scores).sum() for outcome in results)
    assert (average_precision(results), auroc(results), num_hits) == pytest.approx(reference_scores, abs=1e-6)
    assert (
        average_precision([match_hungarian(scan, 0.2) for scan in scans]) < reference_scores[0]
    )  # a planted fault: less is no hit


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_auroc_equals_the_share_of_ordered_pairs(seed):
    results = outcomes(random_pairs(seed, scans=9, most=2))
    ill, healthy = [o.score for o in results if o.has_lesion], [o.score for o in results if not o.has_lesion]
    pairs = [(a > b) + (a == b) / 2 for a in ill for b in healthy]
    area = auroc(results)
    assert area == pytest.approx(np.mean(pairs)) if pairs else np.isnan(area)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_froc_equals_counting_at_every_threshold(seed):
    pairs = random_pairs(seed)
    results = outcomes(pairs, match_luna, compare_by_centre)
    points = compute_operating_points(results)
    total = sum(len(real) for _, real in pairs)
    for n, t in enumerate(points.threshold):
        hits = alarms = 0
        for candidates, real in pairs:
            confident = [c for c in candidates if c.score >= t]
            inside = [
                [np.linalg.norm(np.subtract(c.centre_mm, f.centre_mm)) < f.diameter_mm / 2 for f in real]
                for c in confident
            ]
            hits += sum(any(row[m] for row in inside) for m in range(len(real)))
            alarms += sum(not any(row) for row in inside)
        assert points.false_per_scan[n] == pytest.approx(alarms / len(pairs))
        if total:
            assert points.sensitivity[n] == pytest.approx(hits / total)


def test_cpm_is_linear_between_points_and_level_after_the_last():
    results = [MatchResult(np.array([0.9, 0.7, -np.inf]), np.array([0.8, 0.3]), np.full(3, 5.0), 0.9)]
    # Points (false alarms, sensitivity): (0, 1/3), (1, 1/3), (1, 2/3), (2, 2/3).
    assert np.allclose(sensitivity_at(results), [1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert cpm(results) == pytest.approx((3 * 1 / 3 + 4 * 2 / 3) / 7)
    assert len(CPM_RATES) == 7


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_map_equals_monais_coco_metric(seed):
    pairs = random_pairs(seed)
    if not any(real for _, real in pairs):
        return
    metric = COCOMetric(
        classes=["lesion"], iou_list=[0.1, 0.3, 0.5], iou_range=(0.1, 0.5, 0.05), max_detection=[100], verbose=False
    )

    def boxes(fs):
        return np.array([[*f.low_mm, *f.high_mm] for f in fs]).reshape(-1, 6)

    matched = matching_batch(
        iou_fn=monai_box_iou,
        iou_thresholds=metric.iou_thresholds,
        pred_boxes=[boxes(c) for c, _ in pairs],
        pred_classes=[np.zeros(len(c), int) for c, _ in pairs],
        pred_scores=[np.array([f.score for f in c]) for c, _ in pairs],
        gt_boxes=[boxes(r) for _, r in pairs],
        gt_classes=[np.zeros(len(r), int) for _, r in pairs],
    )
    expected = metric(matched)[0]["mAP_IoU_0.10_0.50_0.05_MaxDet_100"]
    scans = [match_at_ious(compare_by_iou(candidates, real)) for candidates, real in pairs]
    assert mean_average_precision(scans) == pytest.approx(expected, abs=1e-6)


def test_a_duplicate_is_false_for_coco_and_forgiven_by_picai_and_luna():
    scan = ScanMatches(np.array([0.9, 0.8]), np.array([10.0]), np.array([[0.6], [0.7]]))
    assert list(match_greedy(scan, 0.1).false_positive_scores) == [0.8]
    assert list(match_hungarian(scan).false_positive_scores) == []
    assert list(match_luna(scan).hit_scores) == [0.9]


@pytest.mark.parametrize("match", [match_hungarian, match_luna, lambda scan: match_greedy(scan, 0.1)])
def test_perfect_missed_and_false_alarm_never_average_to_perfect(match):
    real = finding((0, 0, 0))
    three = [([finding((0, 0, 0), score=0.9)], [real]), ([], [real]), ([finding((0, 0, 0), score=0.9)], [])]
    results = outcomes(three, match)
    assert average_precision(results) == pytest.approx(0.25)
    assert compute_operating_points(results).sensitivity.max() == pytest.approx(0.5)
    assert cpm(results) <= 0.5
    assert interpolated_precision(results) < 0.3
    assert auroc(results) < 0.5


def test_perfect_detection_is_perfect():
    results = outcomes([([finding((0, 0, 0), score=0.9)], [finding((0, 0, 0))]), ([], [])])
    assert (average_precision(results), interpolated_precision(results), cpm(results), auroc(results)) == (1, 1, 1, 1)


@pytest.mark.parametrize("pairs", [[], [([], [])], [([finding((0, 0, 0))], [])]])
def test_without_lesions_nothing_is_claimed(pairs):
    results = outcomes(pairs)
    claims = [average_precision(results), interpolated_precision(results), cpm(results), auroc(results)]
    assert np.isnan(claims).all()


def test_without_candidates_nothing_is_found():
    results = outcomes([([], [finding((0, 0, 0))]), ([], [])])
    assert (average_precision(results), interpolated_precision(results), cpm(results), auroc(results)) == (0, 0, 0, 0.5)
    assert threshold_at(results, 1.0) == np.inf


def test_sensitivity_by_size_counts_each_range():
    results = [MatchResult(np.array([0.9, -np.inf, 0.2, 0.6]), np.zeros(0), np.array([4.0, 5.0, 12.0, 30.0]), 0.9)]
    rows = sensitivity_by_size(results, 0.5, (0.0, 6.0, 10.0, 20.0, np.inf))
    assert [(n, s) for _, _, n, s in rows if n] == [(2, 0.5), (1, 0.0), (1, 1.0)]
    assert np.isnan(rows[1][3])


def test_the_operating_point_keeps_the_false_alarms_in_bounds():
    results = outcomes(random_pairs(3, scans=20))
    t = threshold_at(results, 0.5)
    assert sum((o.false_positive_scores >= t).sum() for o in results) / len(results) <= 0.5
    lower = (
        compute_operating_points(results)
        .threshold[compute_operating_points(results).threshold < t]
        .max(initial=-np.inf)
    )
    assert sum((o.false_positive_scores >= lower).sum() for o in results) / len(results) > 0.5


def test_ignoring_missed_lesions_would_be_seen(monkeypatch):
    """A planted fault: an evaluator that leaves out missed lesions."""
    pairs = [([finding((0, 0, 0), score=0.9)], [finding((0, 0, 0))]), ([], [finding((0, 0, 0))])]
    right = average_precision(outcomes(pairs))
    concatenate = lesions._concatenate
    monkeypatch.setattr(lesions, "_concatenate", lambda o, name: (v := concatenate(o, name))[np.isfinite(v)])
    assert average_precision(outcomes(pairs)) != right

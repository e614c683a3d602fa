"""Overlap and surface metrics against independent implementations, and over empty masks."""

import types

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from medssl.metrics.overlap import box_iou, component_iou, dice, volume_error_ml
from medssl.metrics.surface import compute_surface_distances

spacings = st.sampled_from([(1.0, 1.0, 1.0), (0.7, 1.3, 2.5), (3.0, 0.4, 0.9)])


def blobs(seed, shape, density):
    """Random masks with smooth parts, single voxels, holes, and parts at the border."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.random(shape), rng.choice([0, 1])) for _ in range(2)]
    return tuple(field <= np.quantile(field, density) for field in fields)


@pytest.fixture
def surface_distance(monkeypatch):
    """The authors' package, given the names that newer numpy and scipy took away."""
    reference = pytest.importorskip("surface_distance.metrics", reason="needs the package surface-distance")
    filters = types.SimpleNamespace(correlate=ndimage.correlate)
    morphology = types.SimpleNamespace(distance_transform_edt=ndimage.distance_transform_edt)
    monkeypatch.setattr(reference, "ndimage", types.SimpleNamespace(filters=filters, morphology=morphology))
    monkeypatch.setattr(reference.np, "Inf", np.inf, raising=False)
    return reference


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.5)])
def test_surface_metrics_equal_the_published_package(surface_distance, seed, spacing):
    ours, reference = blobs(seed, (9, 8, 11), 0.15 + 0.03 * seed)
    assert ours.any() and reference.any()
    distances = compute_surface_distances(ours, reference, spacing)
    expected = surface_distance.compute_surface_distances(reference, ours, spacing)
    for tolerance in (0.0, 0.8, 2.0, 5.0):
        assert distances.nsd(tolerance) == pytest.approx(
            surface_distance.compute_surface_dice_at_tolerance(expected, tolerance), abs=1e-4
        )
    assert distances.hd95_mm() == pytest.approx(surface_distance.compute_robust_hausdorff(expected, 95), abs=1e-4)
    forth, back = surface_distance.compute_average_surface_distance(expected)
    areas = expected["surfel_areas_gt"].sum(), expected["surfel_areas_pred"].sum()
    assert distances.assd_mm() == pytest.approx(np.average([forth, back], weights=areas), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), spacings, st.floats(0.0, 4.0))
def test_surface_metrics_equal_their_definition_over_all_pairs(seed, spacing, tolerance):
    """Without a distance transform: every element of one surface against every element of the other."""
    ours, reference = blobs(seed, (6, 5, 7), 0.4)
    assume(ours.any() and reference.any())
    table = get_code_to_measure_table(spacing)[0].numpy()
    (points, mm2), (points_b, mm2_b) = elements(ours, spacing, table), elements(reference, spacing, table)
    pair_distances = np.linalg.norm(points[:, None] - points_b[None], axis=-1)
    nearest, nearest_b = pair_distances.min(1), pair_distances.min(0)
    distances = compute_surface_distances(ours, reference, spacing)
    assume(np.abs(np.r_[nearest, nearest_b] - tolerance).min() > 1e-6)
    near = mm2[nearest <= tolerance].sum() + mm2_b[nearest_b <= tolerance].sum()
    total = mm2.sum() + mm2_b.sum()
    assert distances.nsd(tolerance) == pytest.approx(near / total, abs=1e-6)
    assert distances.assd_mm() == pytest.approx((nearest @ mm2 + nearest_b @ mm2_b) / total, abs=1e-6)


def elements(mask, spacing, table):
    points, area = [], []
    around = np.pad(mask, 1)
    for corner in np.ndindex(*(n - 1 for n in around.shape)):
        cell = around[tuple(slice(c, c + 2) for c in corner)].ravel()
        code = sum(int(v) << (7 - bit) for bit, v in enumerate(cell))
        if 0 < code < 255:
            points.append(np.array(corner) * spacing)
            area.append(table[code])
    return np.array(points), np.array(area)


def test_the_area_of_a_ball_is_that_of_a_sphere():
    points = np.indices((61, 61, 25)).reshape(3, -1).T * (0.5, 0.5, 1.25) - (15, 15, 15)
    ball = (np.linalg.norm(points, axis=1) <= 12).reshape(61, 61, 25)
    assert compute_surface_distances(ball, ball, (0.5, 0.5, 1.25)).reference_mm2.sum() == pytest.approx(
        4 * np.pi * 144, rel=0.15
    )


def test_the_distance_of_a_shifted_slab_is_the_shift():
    slab, shifted = np.zeros((2, 30, 30, 30), bool)
    slab[5:10, 1:29, 1:29], shifted[8:13, 1:29, 1:29] = True, True
    distances = compute_surface_distances(slab, shifted, (2.0, 1.0, 1.0))
    assert distances.hd95_mm() == pytest.approx(6.0)
    assert 0 < distances.nsd(5.9) < 0.7
    assert distances.nsd(6.1) == pytest.approx(1.0)


PERFECT, MISSED, FALSE_ALARM, BOTH_EMPTY = "perfect", "missed", "false alarm", "both empty"


def masks(outcome):
    full, empty = np.zeros((2, 6, 8, 10), bool)
    full[2:4, 3:5, 4:6] = True
    return {
        PERFECT: (full, full), MISSED: (empty, full), FALSE_ALARM: (full, empty), BOTH_EMPTY: (empty, empty),
    }[outcome]  # fmt: skip


@pytest.mark.parametrize("outcome", [PERFECT, BOTH_EMPTY])
def test_agreement_is_perfect_also_over_nothing(outcome):
    distances = compute_surface_distances(*masks(outcome), (1.0, 1.0, 1.0))
    assert (dice(*masks(outcome)), distances.nsd(1.0), distances.hd95_mm(), distances.assd_mm()) == (1, 1, 0, 0)


@pytest.mark.parametrize("outcome", [MISSED, FALSE_ALARM])
def test_one_empty_mask_scores_worst(outcome):
    distances = compute_surface_distances(*masks(outcome), (1.0, 2.0, 3.0))
    diagonal = pytest.approx(np.sqrt(6**2 + 16**2 + 30**2))
    assert (dice(*masks(outcome)), distances.nsd(100.0)) == (0, 0)
    assert (distances.hd95_mm(), distances.assd_mm()) == (diagonal, diagonal)


def test_perfect_missed_and_false_alarm_never_average_to_perfect():
    three = [masks(outcome) for outcome in (PERFECT, MISSED, FALSE_ALARM)]
    both = [compute_surface_distances(*pair, (1.0, 1.0, 1.0)) for pair in three]
    assert np.mean([dice(*pair) for pair in three]) == pytest.approx(1 / 3)
    assert np.mean([s.nsd(2.0) for s in both]) == pytest.approx(1 / 3)
    assert np.mean([s.hd95_mm() for s in both]) > 5
    assert np.mean([s.assd_mm() for s in both]) > 5
    assert np.mean([volume_error_ml(*pair, 1.0) for pair in three]) > 5


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_dice_equals_its_definition_over_sets(seed):
    ours, reference = blobs(seed, (5, 5, 5), 0.4)
    a, b = ({tuple(v) for v in np.argwhere(m)} for m in (ours, reference))
    assume(a or b)
    assert dice(ours, reference) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
    assert volume_error_ml(ours, reference, 0.5) == pytest.approx(abs(len(a) - len(b)) / 2)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_box_overlap_equals_the_count_of_voxels(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 5, (2, 4, 3))
    high = low + rng.integers(1, 5, (2, 4, 3))
    iou = box_iou(low[0].astype(float), high[0].astype(float), low[1].astype(float), high[1].astype(float))
    for n, m in np.ndindex(4, 4):
        a, b = np.zeros((2, 10, 10, 10), bool)
        a[tuple(slice(*s) for s in zip(low[0, n], high[0, n], strict=True))] = True
        b[tuple(slice(*s) for s in zip(low[1, m], high[1, m], strict=True))] = True
        assert iou[n, m] == pytest.approx((a & b).sum() / (a | b).sum())


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_overlap_of_parts_equals_that_of_their_masks(seed):
    ours, reference = (np.random.default_rng(seed + n).integers(0, 4, (4, 4, 4)) for n in (0, 5000))
    ours[reference == 3] = 0
    iou = component_iou(ours, reference)
    assert iou.shape == (ours.max(), reference.max())
    for n, m in np.ndindex(iou.shape):
        a, b = ours == n + 1, reference == m + 1
        assert iou[n, m] == pytest.approx((a & b).sum() / max(1, (a | b).sum()))

"""Phantoms: the same patient on every grid, anatomy on the correct side, and ground truth that fits the voxels."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.data.phantoms.datasets import (
    CHEST_LABELS,
    HEAD_LABELS,
    PROTOCOLS,
    Phantom,
    simulate_chest_ct,
    simulate_head_mr,
)
from medssl.volume import Volume

SHAPE, SPACING = (60, 60, 60), (4.8, 4.8, 4.8)
LUNG, HEART, LIVER, SPINE, NODULE = CHEST_LABELS
GREY, WHITE, VENTRICLES, LEFT, RIGHT, LESION = HEAD_LABELS
small_seeds = st.integers(0, 10**6)
few_examples = settings(
    max_examples=6, deadline=None, phases=(Phase.reuse, Phase.generate)
)  # shrinking draws for minutes


@cache
def make_chest(seed=3, nodules=4, orientation="RAS", spacing_mm=SPACING, oblique_deg=0.0):
    shape = tuple(round(288 / s) for s in spacing_mm)
    return simulate_chest_ct(seed, shape, spacing_mm, orientation, nodules, oblique_deg)


@cache
def make_head(seed=3, lesions=2, orientation="RAS", spacing_mm=(3.0, 3.0, 3.0)):
    shape = tuple(round(204 / s) for s in spacing_mm)
    return simulate_head_mr(seed, shape, spacing_mm, orientation, lesions)


def centre_mm(label: Volume, value: int):
    return label.to_mm(np.argwhere(label.voxels == value).astype(float)).mean(0)


def volumes_ml(scan: Phantom):
    return np.bincount(scan.label.voxels.ravel(), minlength=7)[1:] * scan.label.voxel_ml()


def is_correct_anatomy(label: Volume) -> bool:
    """Liver on the right, heart on the left and before the spine, liver below the lungs."""
    lung, heart, liver, spine = (centre_mm(label, v) for v in (LUNG, HEART, LIVER, SPINE))
    return bool(
        liver[0] > lung[0] + 15
        and heart[0] < lung[0] - 4
        and heart[1] > spine[1] + 40
        and liver[2] < lung[2] - 50
        and heart[2] < lung[2]
    )


def test_a_seed_repeats_the_scan_voxel_for_voxel():
    first, second = (simulate_chest_ct(8, SHAPE, SPACING) for _ in range(2))
    np.testing.assert_array_equal(first.image.voxels, second.image.voxels)
    assert first.nodules == second.nodules


def test_patients_differ():
    first, second = (make_chest(seed).label.voxels for seed in (1, 2))
    for organ in (LUNG, HEART, LIVER, SPINE):
        shared = 2 * ((first == organ) & (second == organ)).sum() / ((first == organ).sum() + (second == organ).sum())
        assert 0.1 < shared < 0.93


@few_examples
@given(small_seeds, st.sampled_from(PROTOCOLS))
def test_liver_is_right_heart_left_and_spine_behind_on_every_grid(seed, protocol):
    scan = simulate_chest_ct(seed, (48, 48, 48), (6.0, 6.0, 6.0), protocol.orientation, 1, protocol.oblique_deg)
    assert is_correct_anatomy(scan.label)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_scan_is_not_correct_anatomy(axis):
    label = make_chest().label
    assert is_correct_anatomy(label)
    assert not is_correct_anatomy(replace(label, voxels=np.flip(label.voxels, axis)))


@pytest.mark.parametrize(
    "orientation, spacing_mm, oblique_deg",
    [
        ("LPS", (4.8, 4.8, 3.0), 0.0),
        ("PSR", (3.0, 4.0, 6.0), 0.0),
        ("RAS", (3.6, 3.6, 3.6), 0.0),
        ("LSA", SPACING, 6.0),
    ],
)
def test_another_grid_shows_the_same_patient(orientation, spacing_mm, oblique_deg):
    reference, regridded = (
        make_chest(),
        make_chest(orientation=orientation, spacing_mm=spacing_mm, oblique_deg=oblique_deg),
    )
    assert reference.nodules == regridded.nodules
    organs = [v - 1 for v in (LUNG, HEART, LIVER, SPINE)]
    if oblique_deg == 0:  # else the corners of the field of view cut other parts of the lungs and the liver
        np.testing.assert_allclose(volumes_ml(regridded)[organs], volumes_ml(reference)[organs], rtol=0.03)
    for organ in (LUNG, HEART, LIVER):
        assert np.abs(centre_mm(reference.label, organ) - centre_mm(regridded.label, organ)).max() < 2


def test_the_heads_grid_shows_the_same_patient_too():
    reference, regridded = make_head(), make_head(orientation="ASL", spacing_mm=(2.0, 4.0, 3.0))
    np.testing.assert_allclose(volumes_ml(regridded)[[0, 1]], volumes_ml(reference)[[0, 1]], rtol=0.04)
    for structure in (VENTRICLES, LEFT, RIGHT):
        assert np.abs(centre_mm(reference.label, structure) - centre_mm(regridded.label, structure)).max() < 1.5


@few_examples
@given(small_seeds, st.integers(1, 4), st.sampled_from([0.0, 9.0]))
def test_nodules_are_balls_with_the_listed_centre_and_size(seed, count, oblique_deg):
    scan = simulate_chest_ct(seed, (72, 72, 72), (4.0, 4.0, 4.0), "RAS", count, oblique_deg)
    pieces, count_found = ndimage.label(scan.label.voxels == NODULE, np.ones((3, 3, 3)))
    assert count_found == len(scan.nodules) == count
    for nodule in scan.nodules:
        i, j, k = np.rint(scan.label.to_index(np.asarray(nodule.centre_mm))).astype(int)
        piece = np.argwhere(pieces == pieces[i, j, k]).astype(float)
        points = scan.label.to_mm(piece)
        assert pieces[i, j, k] > 0
        assert np.linalg.norm(points - nodule.centre_mm, axis=1).max() < nodule.diameter_mm / 2
        all_voxels = np.argwhere(np.ones(scan.label.shape, bool)).astype(float)
        distances = np.linalg.norm(scan.label.to_mm(all_voxels) - nodule.centre_mm, axis=1)
        assert len(piece) == (distances < nodule.diameter_mm / 2).sum()


def test_nodules_lie_in_the_lung_and_stand_out_from_it():
    scan = make_chest(seed=5)
    for nodule in scan.nodules:
        i, j, k = np.rint(scan.label.to_index(np.asarray(nodule.centre_mm))).astype(int)
        surrounding = ndimage.binary_dilation(scan.label.voxels == NODULE, iterations=2) & (scan.label.voxels == LUNG)
        assert scan.image.voxels[i, j, k] > np.median(scan.image.voxels[surrounding]) + 150


def test_tissues_have_their_hounsfield_units():
    for seed in (1, 2, 3):
        scan = make_chest(seed)
        median = {v: float(np.median(scan.image.voxels[scan.label.voxels == v])) for v in (LUNG, HEART, LIVER, SPINE)}
        assert -910 < median[LUNG] < -740
        assert 30 < median[LIVER] < 160
        assert 30 < median[HEART] < 280
        assert 100 < median[SPINE] < 420
        assert -1010 < np.median(scan.image.voxels[[0, -1]]) < -990
        fat = (scan.image.voxels > -130) & (scan.image.voxels < -70)
        assert 0.03 < fat.mean() < 0.4


def test_noise_is_correlated_and_differs_between_patients():
    spread = []
    for seed in range(6):
        air = simulate_chest_ct(seed, (64, 64, 12), (5.0, 5.0, 4.0)).image.voxels[:8, :8].astype(float)
        spread.append(air.std())
        along = np.corrcoef(air[:-1].ravel(), air[1:].ravel())[0, 1]
        assert along > 0.15
    assert max(spread) > 1.5 * min(spread)


def test_zero_nodules_are_zero_and_too_many_are_refused():
    assert not simulate_chest_ct(1, (24,) * 3, (12.0,) * 3, num_nodules=0).nodules
    assert len(simulate_chest_ct(1, (24,) * 3, (12.0,) * 3, num_nodules=30).nodules) == 30
    with pytest.raises(ValueError, match="at most 30"):
        simulate_chest_ct(1, (24,) * 3, (12.0,) * 3, num_nodules=31)


def test_nodules_outside_the_field_of_view_are_not_listed():
    whole, part = make_chest(), simulate_chest_ct(3, (24, 60, 60), SPACING, num_nodules=4)
    visible = [n for n in whole.nodules if abs(n.centre_mm[0]) < 12 * 4.8]
    assert list(part.nodules) == visible


def test_both_sequences_show_the_head_in_their_own_contrast():
    scan = make_head()
    t1, t2 = ({v: np.median(c[scan.label.voxels == v]) for v in HEAD_LABELS} for c in scan.image.voxels)
    assert t1[WHITE] > t1[GREY] > t1[VENTRICLES]
    assert t2[VENTRICLES] > t2[GREY] > t2[WHITE]
    assert t2[LESION] > t2[WHITE] and t1[LESION] < t1[WHITE]


@few_examples
@given(small_seeds)
def test_the_left_hippocampus_is_on_the_left_and_smaller(seed):
    scan = make_head(seed, None)
    assert centre_mm(scan.label, LEFT)[0] < centre_mm(scan.label, VENTRICLES)[0] < centre_mm(scan.label, RIGHT)[0]
    assert volumes_ml(scan)[LEFT - 1] < 0.9 * volumes_ml(scan)[RIGHT - 1]


def test_some_heads_have_lesions_and_some_have_none():
    outcomes = {bool((make_head(seed, None, spacing_mm=(6.0,) * 3).label.voxels == LESION).any()) for seed in range(8)}
    assert outcomes == {True, False}


def test_the_air_round_a_head_is_rician():
    air = make_head().image.voxels[:, :6, :6].astype(float)
    assert (air > 0).mean() > 0.95
    assert np.mean(air) / np.std(air) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.15)

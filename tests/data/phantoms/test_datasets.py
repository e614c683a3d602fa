"""Phantoms: the same patient on every grid, anatomy on its right side, and a truth that the voxels bear out."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.data.phantoms import datasets as phantom
from medssl.data.phantoms.datasets import CHEST_LABELS, HEAD_LABELS, PROTOCOLS, Phantom
from medssl.volume import Volume

SHAPE, SPACING = (60, 60, 60), (4.8, 4.8, 4.8)
LUNG, HEART, LIVER, SPINE, NODULE = CHEST_LABELS
GREY, WHITE, VENTRICLES, LEFT, RIGHT, LESION = HEAD_LABELS
small_seeds = st.integers(0, 10**6)
few = settings(max_examples=6, deadline=None, phases=(Phase.reuse, Phase.generate))  # shrinking draws for minutes


@cache
def a_chest(seed=3, nodules=4, orientation="RAS", spacing_mm=SPACING, oblique_deg=0.0):
    shape = tuple(round(288 / s) for s in spacing_mm)
    return phantom.chest(seed, shape, spacing_mm, orientation, nodules, oblique_deg)


@cache
def a_head(seed=3, lesions=2, orientation="RAS", spacing_mm=(3.0, 3.0, 3.0)):
    shape = tuple(round(204 / s) for s in spacing_mm)
    return phantom.head(seed, shape, spacing_mm, orientation, lesions)


def centre_mm(label: Volume, value: int):
    return label.to_mm(np.argwhere(label.voxels == value).astype(float)).mean(0)


def volumes_ml(scan: Phantom):
    return np.bincount(scan.label.voxels.ravel(), minlength=7)[1:] * scan.label.voxel_ml()


def anatomy_is_right(label: Volume) -> bool:
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
    once, again = (phantom.chest(8, SHAPE, SPACING) for _ in range(2))
    np.testing.assert_array_equal(once.image.voxels, again.image.voxels)
    assert once.nodules == again.nodules


def test_patients_truly_differ():
    one, other = (a_chest(seed).label.voxels for seed in (1, 2))
    for organ in (LUNG, HEART, LIVER, SPINE):
        shared = 2 * ((one == organ) & (other == organ)).sum() / ((one == organ).sum() + (other == organ).sum())
        assert 0.1 < shared < 0.93


@few
@given(small_seeds, st.sampled_from(PROTOCOLS))
def test_liver_is_right_heart_left_and_spine_behind_on_every_grid(seed, protocol):
    scan = phantom.chest(seed, (48, 48, 48), (6.0, 6.0, 6.0), protocol.orientation, 1, protocol.oblique_deg)
    assert anatomy_is_right(scan.label)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_scan_is_not_taken_for_right_anatomy(axis):
    label = a_chest().label
    assert anatomy_is_right(label)
    assert not anatomy_is_right(replace(label, voxels=np.flip(label.voxels, axis)))


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
    here, there = a_chest(), a_chest(orientation=orientation, spacing_mm=spacing_mm, oblique_deg=oblique_deg)
    assert here.nodules == there.nodules
    organs = [v - 1 for v in (LUNG, HEART, LIVER, SPINE)]
    if oblique_deg == 0:  # else the corners of the field of view cut other parts of the lungs and the liver
        np.testing.assert_allclose(volumes_ml(there)[organs], volumes_ml(here)[organs], rtol=0.03)
    for organ in (LUNG, HEART, LIVER):
        assert np.abs(centre_mm(here.label, organ) - centre_mm(there.label, organ)).max() < 2


def test_the_heads_grid_shows_the_same_patient_too():
    here, there = a_head(), a_head(orientation="ASL", spacing_mm=(2.0, 4.0, 3.0))
    np.testing.assert_allclose(volumes_ml(there)[[0, 1]], volumes_ml(here)[[0, 1]], rtol=0.04)
    for structure in (VENTRICLES, LEFT, RIGHT):
        assert np.abs(centre_mm(here.label, structure) - centre_mm(there.label, structure)).max() < 1.5


@few
@given(small_seeds, st.integers(1, 4), st.sampled_from([0.0, 9.0]))
def test_nodules_are_balls_of_the_said_place_and_size(seed, count, oblique_deg):
    scan = phantom.chest(seed, (72, 72, 72), (4.0, 4.0, 4.0), "RAS", count, oblique_deg)
    pieces, found = ndimage.label(scan.label.voxels == NODULE, np.ones((3, 3, 3)))
    assert found == len(scan.nodules) == count
    for nodule in scan.nodules:
        i, j, k = np.rint(scan.label.to_index(np.asarray(nodule.centre_mm))).astype(int)
        piece = np.argwhere(pieces == pieces[i, j, k]).astype(float)
        places = scan.label.to_mm(piece)
        assert pieces[i, j, k] > 0
        assert np.linalg.norm(places - nodule.centre_mm, axis=1).max() < nodule.diameter_mm / 2
        everywhere = np.argwhere(np.ones(scan.label.shape, bool)).astype(float)
        apart = np.linalg.norm(scan.label.to_mm(everywhere) - nodule.centre_mm, axis=1)
        assert len(piece) == (apart < nodule.diameter_mm / 2).sum()


def test_nodules_lie_in_the_lung_and_stand_out_from_it():
    scan = a_chest(seed=5)
    for nodule in scan.nodules:
        i, j, k = np.rint(scan.label.to_index(np.asarray(nodule.centre_mm))).astype(int)
        around = ndimage.binary_dilation(scan.label.voxels == NODULE, iterations=2) & (scan.label.voxels == LUNG)
        assert scan.image.voxels[i, j, k] > np.median(scan.image.voxels[around]) + 150


def test_tissues_have_their_hounsfield_units():
    for seed in (1, 2, 3):
        scan = a_chest(seed)
        median = {v: float(np.median(scan.image.voxels[scan.label.voxels == v])) for v in (LUNG, HEART, LIVER, SPINE)}
        assert -910 < median[LUNG] < -740
        assert 30 < median[LIVER] < 160
        assert 30 < median[HEART] < 280
        assert 100 < median[SPINE] < 420
        assert -1010 < np.median(scan.image.voxels[[0, -1]]) < -990
        fat = (scan.image.voxels > -130) & (scan.image.voxels < -70)
        assert 0.03 < fat.mean() < 0.4


def test_noise_is_correlated_and_its_dose_is_the_patients():
    spread = []
    for seed in range(6):
        air = phantom.chest(seed, (64, 64, 12), (5.0, 5.0, 4.0)).image.voxels[:8, :8].astype(float)
        spread.append(air.std())
        along = np.corrcoef(air[:-1].ravel(), air[1:].ravel())[0, 1]
        assert along > 0.15
    assert max(spread) > 1.5 * min(spread)


def test_zero_nodules_are_zero_and_too_many_are_refused():
    assert not phantom.chest(1, (24,) * 3, (12.0,) * 3, nodules=0).nodules
    assert len(phantom.chest(1, (24,) * 3, (12.0,) * 3, nodules=30).nodules) == 30
    with pytest.raises(ValueError, match="at most 30"):
        phantom.chest(1, (24,) * 3, (12.0,) * 3, nodules=31)


def test_nodules_outside_the_field_of_view_are_not_listed():
    whole, part = a_chest(), phantom.chest(3, (24, 60, 60), SPACING, nodules=4)
    seen = [n for n in whole.nodules if abs(n.centre_mm[0]) < 12 * 4.8]
    assert list(part.nodules) == seen


def test_both_sequences_show_the_head_in_their_own_contrast():
    scan = a_head()
    t1, t2 = ({v: np.median(c[scan.label.voxels == v]) for v in HEAD_LABELS} for c in scan.image.voxels)
    assert t1[WHITE] > t1[GREY] > t1[VENTRICLES]
    assert t2[VENTRICLES] > t2[GREY] > t2[WHITE]
    assert t2[LESION] > t2[WHITE] and t1[LESION] < t1[WHITE]


@few
@given(small_seeds)
def test_the_left_hippocampus_lies_left_and_is_the_smaller_one(seed):
    scan = a_head(seed, None)
    assert centre_mm(scan.label, LEFT)[0] < centre_mm(scan.label, VENTRICLES)[0] < centre_mm(scan.label, RIGHT)[0]
    assert volumes_ml(scan)[LEFT - 1] < 0.9 * volumes_ml(scan)[RIGHT - 1]


def test_some_heads_have_lesions_and_some_have_none():
    have = {bool((a_head(seed, None, spacing_mm=(6.0,) * 3).label.voxels == LESION).any()) for seed in range(8)}
    assert have == {True, False}


def test_the_air_round_a_head_is_rician():
    air = a_head().image.voxels[:, :6, :6].astype(float)
    assert (air > 0).mean() > 0.95
    assert np.mean(air) / np.std(air) == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.15)

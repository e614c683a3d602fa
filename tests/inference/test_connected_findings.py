"""Findings measured on shapes with known volume, centre and diameter."""

import numpy as np
import pytest

from medssl.errors import InputWarning
from medssl.inference.connected_findings import extract_findings
from medssl.volume import Volume

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5), (3.0, 1.0, 0.5)]


def rotation(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = -s, s
    return matrix


def grid(shape, spacing=(1.0, 1.0, 1.0), rotation_matrix=None, origin=(-40.0, 15.0, 7.0)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation_matrix is None else rotation_matrix) @ np.diag(spacing)
    affine[:3, 3] = origin
    return Volume(np.zeros(shape, np.uint8), affine, "label")


def ball(volume, centre_mm, diameter_mm):
    points_mm = volume.to_mm(np.indices(volume.shape).reshape(3, -1).T.astype(float))
    return (np.linalg.norm(points_mm - centre_mm, axis=1) <= diameter_mm / 2).reshape(volume.shape)


def find(labels, **options):
    zero = np.zeros(labels.shape, np.float32)
    return extract_findings(
        labels, options.pop("confidence", zero), options.pop("entropy", zero), "a", {1: "one", 2: "two"}, **options
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("rotation_matrix", [np.eye(3), rotation(2, 30) @ rotation(0, 20)])
def test_a_ball_has_its_volume_centre_and_diameter_on_any_grid(spacing, rotation_matrix):
    labels = grid([int(60 / s) for s in spacing], spacing, rotation_matrix)
    centre = labels.to_mm((np.array(labels.shape) / 2 + 0.2)[None])[0]
    labels.voxels[ball(labels, centre, 30.0)] = 1
    (finding,) = find(labels)
    assert finding.volume_ml == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.03)
    assert np.allclose(finding.centre_mm, centre, atol=0.25)
    assert finding.diameter_mm == pytest.approx(30, abs=max(spacing) * 0.6)
    assert np.allclose(np.subtract(finding.high_mm, finding.low_mm), 30, atol=2 * sum(spacing))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_cuboid_is_measured_exactly_on_an_upright_grid(spacing):
    labels = grid((20, 20, 20), spacing)
    labels.voxels[3:8, 4:7, 5:15] = 2
    (box,) = find(labels)
    sides = np.array([5, 3, 10]) * spacing
    assert box.volume_ml == pytest.approx(np.prod(sides) / 1000)
    assert np.allclose(box.low_mm, labels.to_mm(np.array([[2.5, 3.5, 4.5]]))[0])
    assert np.allclose(box.high_mm, labels.to_mm(np.array([[7.5, 6.5, 14.5]]))[0])
    between_centres_mm = np.linalg.norm(sides - spacing)
    assert between_centres_mm - 0.5 * max(spacing) < box.diameter_mm < np.linalg.norm(sides)
    assert (box.label, box.name, box.id) == (2, "two", "a-2-1")


def test_a_single_voxel_is_as_long_as_its_longest_side():
    labels = grid((3, 3, 3), (0.5, 1.0, 4.0))
    labels.voxels[1, 1, 1] = 1
    assert find(labels)[0].diameter_mm == pytest.approx(4.0)


def test_voxels_that_touch_by_a_corner_are_one_finding_and_labels_never_merge():
    labels = grid((8, 8, 8))
    labels.voxels[1, 1, 1] = labels.voxels[2, 2, 2] = 1
    labels.voxels[3, 3, 3] = 2
    labels.voxels[6, 6, 6] = 1
    findings = find(labels)
    assert [(f.label, round(f.volume_ml * 1000)) for f in findings] == [(1, 2), (1, 1), (2, 1)]
    assert [f.id for f in findings] == ["a-1-1", "a-1-2", "a-2-1"]


def test_small_components_are_left_out_on_request():
    labels = grid((8, 8, 8), (2.0, 2.0, 2.0))
    labels.voxels[1:3, 1:3, 1:3] = 1
    labels.voxels[6, 6, 6] = 1
    assert [f.volume_ml for f in find(labels, min_volume_ml=0.01)] == [pytest.approx(0.064)]


def test_the_score_is_the_peak_and_the_uncertainty_the_mean():
    labels = grid((4, 4, 4))
    labels.voxels[1, 1, 1:3] = 1
    confidence, entropy = np.zeros((2, 4, 4, 4), np.float32)
    confidence[1, 1, 1:3] = 0.6, 0.9
    entropy[1, 1, 1:3] = 0.2, 0.4
    (finding,) = find(labels, confidence=confidence, entropy=entropy)
    assert finding.score == pytest.approx(0.9)
    assert finding.uncertainty == pytest.approx(0.3)


def test_nothing_labelled_gives_no_finding():
    assert find(grid((4, 4, 4))) == ()


def test_too_many_components_are_cut_off_with_a_warning():
    labels = grid((30, 30, 30))
    labels.voxels[::2, ::2, ::2] = 1
    labels.voxels[:5, :5, :5] = 1
    with pytest.warns(InputWarning, match="the 500 largest"):
        findings = find(labels)
    assert len(findings) == 500
    assert findings[0].volume_ml == pytest.approx(0.125)
    assert find(labels, min_volume_ml=0.002) == findings[:1]


def test_intensities_are_those_of_the_first_channel():
    labels = grid((6, 6, 6))
    labels.voxels[1, 1, 1:4] = 1
    voxels = np.zeros((2, 6, 6, 6), np.int16)
    voxels[0, 1, 1, 1:4] = 10, 20, 60
    (finding,) = find(labels, image=Volume(voxels, labels.affine, "HU"))
    assert finding.mean_intensity == pytest.approx(30) and finding.sd_intensity == pytest.approx(np.std([10, 20, 60]))
    assert find(labels)[0].mean_intensity is None


def test_a_lesion_names_the_organ_around_it_and_the_side_of_a_paired_one():
    labels = grid((60, 20, 20))
    labels.voxels[2:22, 3:17, 3:17] = labels.voxels[38:58, 3:17, 3:17] = 1
    labels.voxels[40:43, 8:11, 8:11] = labels.voxels[10:12, 8:10, 8:10] = labels.voxels[28:29, 8:9, 8:9] = 2
    large, small, between, lungs = find(labels, organs={1})
    assert (large.location, small.location, lungs.location) == ("at one, right", "at one, left", "")
    assert between.location.startswith("6 mm from one")
    assert [f.location for f in find(labels)] == [""] * 5

"""Sizes and overlay of findings are the same in slabs and boxes as over the whole volume."""

import numpy as np
import pytest

from medssl.export.drawn_findings import measure_drawn_findings
from medssl.export.drawn_regions import measure_drawn_regions
from medssl.inference.connected_findings import extract_findings
from medssl.io import nifti
from medssl.io.slabs import slab_file
from medssl.io.slabs.from_nifti import convert
from medssl.review.corrected_labels import FindingMap
from medssl.review.event import Event
from medssl.review.mask_runs import diff_masks, pack_runs
from medssl.review.reading import Reading
from medssl.review.slabs.finding_slabs import FindingSlabs
from medssl.review.slabs.predicted_slabs import PredictedSlabs
from medssl.volume import Volume

NAMES = {1: "lung", 2: "nodule"}
SHAPE = (70, 64, 90)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Labels with an organ and four nodules in it, in slabs of a few planes."""
    monkeypatch.setattr(slab_file, "SLAB_BYTES", 30_000)
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[5:65, 5:60, 5:85] = 1
    for i, j, k in ((10, 10, 10), (12, 10, 30), (50, 50, 40), (40, 20, 80)):
        voxels[i : i + 4, j : j + 5, k : k + 3] = 2
    labels = Volume(voxels, np.diag([-0.7, -0.8, 1.5, 1.0]), "label")
    ones = np.ones(SHAPE, np.float32)
    findings = extract_findings(labels, ones, None, "case", NAMES, organs=[1])
    nifti.write(labels, tmp_path / "labels.nii.gz")
    slabs = convert(tmp_path / "labels.nii.gz", tmp_path / "labels.slabs", "label")
    return FindingMap.from_prediction(labels, findings, 2), PredictedSlabs(slabs, findings, 2)


def draw_strokes(whole, boxes):
    """Returns a reading with one stroke for each (finding, label, box)."""
    strokes, before = [], np.zeros(SHAPE, np.int16)
    for number, (finding, label, box) in enumerate(boxes, 1):
        after = before.copy()
        after[box] = label
        mask = pack_runs(diff_masks(np.full_like(before, -1), np.where(after != before, after, -1)))
        strokes.append(make_event(number, finding, mask))
    return Reading("case", "ana", strokes=tuple(strokes))


def make_event(number, finding, mask):
    fields = {"session": "s", "case": "case", "reviewer": "ana", "role": "reader", "action": "stroke"}
    chain = {"at": "2026-01-01T00:00:00+00:00", "version": "0", "prev_hash": "", "hash": f"{number} {finding}"}
    return Event(**fields, **chain, id=number, number=number, finding=finding, mask=mask)


def box(i, j, k, size=4):
    return slice(i, i + size), slice(j, j + size), slice(k, k + size)


LESIONS = [f"case-2-{n}" for n in (1, 2, 3, 4)]
READINGS = {
    "none": [],
    "larger": [(LESIONS[0], 2, box(52, 40, 10))],
    "two findings meet": [(LESIONS[0], 2, box(48, 48, 12, 12)), (LESIONS[1], 2, box(46, 44, 30, 20))],
    "a part far away": [(LESIONS[2], 2, box(2, 2, 2)), (LESIONS[2], 2, box(60, 58, 86, 2))],
    "erased": [(LESIONS[1], 0, box(0, 0, 0, 70))],
    "the organ": [(LESIONS[1], 1, box(0, 0, 0, 30))],
    "no finding": [("", 2, box(1, 1, 1)), ("", 2, box(66, 60, 1, 2))],
    "over the border of the lines": [(LESIONS[3], 2, (slice(None), slice(None), slice(40, 42)))],
}


@pytest.mark.parametrize("strokes", READINGS.values(), ids=READINGS)
def test_the_sizes_are_those_of_the_whole_volume(scene, strokes):
    whole, predicted = scene
    reading = draw_strokes(whole, strokes)
    expected = {item.finding.id: item for item in measure_drawn_findings(whole, reading, NAMES).findings}
    measured = measure_drawn_regions(predicted, reading, NAMES)
    assert len(measured) == len(expected)
    for item in measured:
        other = expected[item.finding.id]
        assert (item.is_changed, item.is_listed, item.part_of) == (other.is_changed, other.is_listed, other.part_of)
        for name in ("volume_ml", "diameter_mm", "long_axis_mm", "short_axis_mm", "sphericity", "centre_mm", "low_mm"):
            ours, theirs = getattr(item.finding, name), getattr(other.finding, name)
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-4), (item.finding.id, name)


@pytest.mark.parametrize("strokes", READINGS.values(), ids=READINGS)
def test_the_overlay_is_that_of_the_whole_volume(scene, strokes):
    whole, predicted = scene
    reading = draw_strokes(whole, strokes)
    slabs = FindingSlabs(predicted, reading)
    numbers = whole.draw(reading).numbers.voxels
    for start, stop in ((0, 7), (7, 41), (41, 90)):
        assert (slabs.read_planes(start, stop) == numbers[..., start:stop]).all()


def test_a_small_change_is_measured_in_a_small_part_of_the_volume(scene):
    whole, predicted = scene
    regions = predicted.list_regions(draw_strokes(whole, [(LESIONS[0], 2, box(52, 40, 10))]))
    assert len(regions) == 1 and np.prod(regions[0].size) < 0.5 * np.prod(SHAPE)


def test_two_overlays_are_equal_only_with_the_same_strokes(scene):
    whole, predicted = scene
    first, second = (draw_strokes(whole, READINGS[name]) for name in ("larger", "erased"))
    hashes = {FindingSlabs(predicted, reading).table.sha256 for reading in (first, first, second)}
    assert len(hashes) == 2

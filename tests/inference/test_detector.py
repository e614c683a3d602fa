"""Detections lie on the grid of the image, for every kind of network and window position."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.arrays import disk_arrays
from medssl.inference.connected_findings import extract_findings, label_components
from medssl.inference.detector import Detector, instance_map, merge_peaks_and_boxes
from medssl.inference.ensemble import Ensemble
from medssl.inference.lesion_candidates import Candidate, ellipsoid_candidate
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_stream import collect_prediction
from medssl.inference.streaming.grid_map import GridMap
from medssl.inference.test_time_augmentation import MirrorView
from medssl.nn.detection.boxes import find_lesions
from medssl.volume import Volume

BRIGHT = {(12, 14, 20): 0.9, (30, 22, 11): 0.4}
VIEWS = (MirrorView(), MirrorView((0,)), MirrorView((1, 2)))


def image(spots=BRIGHT, shape=(40, 36, 32), spacing=(1.0, 1.0, 1.0)):
    """Returns balls of radius 3, whose brightness is the score they should get."""
    indices = np.indices(shape).transpose(1, 2, 3, 0)
    voxels = np.zeros(shape, np.float32)
    for centre, brightness in spots.items():
        voxels[np.linalg.norm(indices - centre, axis=-1) <= 3] = brightness
    return Volume(voxels, np.diag([*spacing, 1.0]), "a.u.")


def voxels(x):
    return torch.cat([1 - x, x], 1)


def boxes(x):
    """Returns each bright component of a window as a box, with its brightness as score, among 4 anchors."""
    scores, corners = torch.zeros(len(x), 4, 1), torch.zeros(len(x), 4, 6)
    for n, window in enumerate(x[:, 0]):
        lesions = find_lesions((window[None] > 0).long())[1][0]
        for m, row in enumerate(lesions.corners):
            corners[n, m] = row
            scores[n, m] = window[tuple(map(slice, row[:3].long().tolist(), row[3:].long().tolist()))].max()
    return scores, corners


def predict_no_boxes(x):
    """Returns anchors without a score."""
    return torch.zeros(len(x), 4, 1), torch.zeros(len(x), 4, 6)


def detector(route="voxel", **options):
    heads = (voxels,) * (route != "box"), (boxes,) * (route != "voxel")
    networks = (tuple(map(TorchNetwork, head)) for head in heads)
    return Detector(*networks, lambda v: v, (24, 24, 24), {1: "nodule"}, **options)


@pytest.mark.parametrize("route", ["voxel", "box", "both"])
@pytest.mark.parametrize("views", [VIEWS[:1], VIEWS], ids=["straight", "mirrored"])
def test_every_head_finds_both_lesions_with_position_and_score(route, views):
    prediction = detector(route, views=views)(image(), "a")
    findings = sorted(prediction.findings, key=lambda f: -f.score)
    assert len(findings) == 2
    for finding, (centre, sure) in zip(findings, BRIGHT.items(), strict=True):
        assert np.allclose(finding.centre_mm, centre, atol=0.6)
        assert finding.score == pytest.approx(sure, rel=0.15)
    assert {f.source for f in findings} == {"box" if route == "box" else "mask"}
    assert prediction.labels.unit == "label" and prediction.probability.unit == "probability"


@pytest.mark.parametrize("route", ["voxel", "box", "both"])
def test_empty_and_small_volumes_work(route):
    assert detector(route)(image({}), "a").findings == ()
    (only,) = detector(route)(image({(4, 9, 5): 0.8}, (10, 18, 9)), "a").findings
    assert np.allclose(only.centre_mm, (4, 9, 5), atol=0.7)


def test_silent_network_halves_the_score():
    pair = replace(detector("box"), box_networks=(TorchNetwork(boxes), TorchNetwork(predict_no_boxes)))
    scores = [sorted(f.score for f in model(image(), "a").findings) for model in (detector("box"), pair)]
    assert np.allclose(np.array(scores[0]) / 2, scores[1], rtol=1e-5)


@pytest.mark.parametrize("route", ["voxel", "both"])
def test_disagreement_equals_that_of_an_ensemble(route):
    """The second network sees everything at half the brightness."""
    pair = replace(detector(route), voxel_networks=(TorchNetwork(voxels), TorchNetwork(lambda x: voxels(x / 2))))
    prediction, single = pair(image(), "a"), detector(route)(image(), "a")
    assert single.uncertainty is None
    members = [Predictor(network, lambda v: v, (24, 24, 24), {1: "nodule"}) for network in pair.voxel_networks]
    assert np.allclose(
        prediction.uncertainty.voxels, Ensemble(tuple(members))(image(), "a").uncertainty.voxels, atol=2e-3
    )
    for finding in prediction.findings:
        number = label_components(prediction.labels.voxels == 1) == int(finding.id[-1])
        assert finding.uncertainty == pytest.approx(prediction.uncertainty.voxels[number].mean(), abs=1e-4)


def test_equal_views_do_not_disagree_and_boxes_give_no_uncertainty():
    same = detector(views=VIEWS)(image(), "a")
    assert same.uncertainty.voxels.max() < 1e-3 and max(f.uncertainty for f in same.findings) < 1e-3
    assert detector("box", views=VIEWS)(image(), "a").uncertainty is None


def test_scores_are_calibrated():
    halved = detector(calibrate=lambda score: score / 2)(image(), "a")
    assert max(f.score for f in halved.findings) == pytest.approx(0.45, abs=0.01)


def test_findings_are_numbered_like_label_components():
    prediction = detector()(image(), "a")
    numbers = label_components(prediction.labels.voxels == 1)
    assert [f.id for f in prediction.findings] == ["a-1-1", "a-1-2"] and numbers.max() == 2
    for n, finding in enumerate(prediction.findings, 1):
        assert np.allclose(prediction.labels.to_mm(np.argwhere(numbers == n).mean(0)[None])[0], finding.centre_mm)


def test_a_lesion_between_the_slices_of_a_coarse_grid_keeps_a_voxel():
    coarse = Volume(np.zeros((10, 9, 2), np.float32), np.diag([4.0, 4, 20, 1]), "a.u.")
    fine = image({(12, 14, 10): 0.9})
    prediction = replace(detector(), prepare=lambda v: fine)(coarse, "a")
    assert [round(f.score, 1) for f in prediction.findings] == [0.9]
    assert prediction.labels.shape == coarse.shape


def candidate(low, high, score, label=1, shape=(20, 20, 20)):
    return ellipsoid_candidate(np.array([*low, *high], float), label, score, shape)


def test_matching_candidates_get_the_mean_score_and_others_half():
    both, peak, box = (candidate((n, n, n), (n + 4, n + 4, n + 4), 0.8) for n in (0, 6, 12))
    merged = merge_peaks_and_boxes([both, peak], [replace(both, score=0.4), box])
    assert [match.score for match in merged] == pytest.approx([0.6, 0.4, 0.4])
    assert [match.score for match in merge_peaks_and_boxes([both], [replace(both, label=2)])] == pytest.approx(
        [0.4, 0.4]
    )


def test_touching_candidates_are_separated():
    first, second = candidate((2, 2, 2), (9, 9, 9), 0.9), candidate((7, 7, 7), (14, 14, 14), 0.5)
    instances = instance_map([first, second], (20, 20, 20))
    assert (instances == 1).sum() == len(first.voxels)
    assert 0 < (instances == 2).sum() < len(second.voxels)
    assert label_components(instances > 0).max() == 2


@pytest.mark.parametrize(
    "box", [(3, 3, 3, 3, 3, 3), (8, 8, 8, 2, 2, 2), (30, 30, 30, 40, 40, 40), (-9, 2, 2, -3, 8, 8)]
)
def test_degenerate_or_outside_box_has_at_most_one_voxel(box):
    outside = ellipsoid_candidate(np.array(box, float), 1, 0.5, (20, 20, 20))
    assert isinstance(outside, Candidate) and len(outside.voxels) <= 1


def test_a_box_over_the_border_is_cut_there():
    clipped = ellipsoid_candidate(np.array([-4, 5, 5, 6, 15, 15], float), 1, 0.5, (20, 20, 20))
    assert clipped.voxels.min() == 0 and clipped.voxels[:, 0].max() == 5


def test_single_voxel_box_is_drawn():
    assert len(ellipsoid_candidate(np.array([3.5, 3.5, 3.5, 4.5, 4.5, 4.5]), 1, 0.5, (20, 20, 20)).voxels) == 1


@pytest.mark.parametrize("codes", ["RAS", "SPL"])
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_a_streamed_detection_equals_the_one_on_the_whole_grid(codes, pair):
    networks = tuple(map(TorchNetwork, (voxels, lambda x: voxels(x / 2)) if pair else (voxels,)))
    working = image({**BRIGHT, (20, 8, 25): 0.7})
    model = replace(detector("voxel"), voxel_networks=networks, prepare=lambda v: working)
    affine = working.affine @ np.diag([0.7, 0.8, 0.6, 1])
    affine[:3, 3] = (1.13, 2.21, -0.37)
    scan = Volume(np.zeros((50, 41, 57), np.float32), affine, "a.u.").reorient(codes)
    axis = GridMap.between(working, scan).order[0]  # windows are added along it, which changes the rounding
    candidates, lesion_map, disagreement_map = model.find_candidates(working.voxels[None], axis)
    drawing = replace(working, voxels=instance_map(candidates, working.shape), unit="label")
    numbers = drawing.resample_to(scan, order=0).voxels
    probability = replace(working, voxels=lesion_map, unit="probability").resample_to(scan, order=1, fill=None).voxels
    p = probability.clip(1e-6, 1 - 1e-6)
    doubt = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    if pair:
        doubt = replace(working, voxels=disagreement_map).resample_to(scan, order=1, fill=None).voxels
    scores = np.array([0, *(c.score for c in candidates)], np.float32)[numbers]
    labels = replace(scan, voxels=(numbers > 0).astype(np.uint8), unit="label")
    streamed = model(scan, "a")
    assert len(streamed.findings) == 3 and (streamed.uncertainty is not None) == pair
    assert np.array_equal(streamed.labels.voxels, labels.voxels)
    assert np.allclose(streamed.probability.voxels, probability, atol=1e-6)
    expected = extract_findings(labels, scores, doubt, "a", model.names, image=scan)
    for finding, other in zip(streamed.findings, expected, strict=True):
        assert finding.uncertainty == pytest.approx(other.uncertainty, abs=1e-6)
        assert replace(finding, uncertainty=None) == replace(other, uncertainty=None)


@pytest.mark.parametrize("route", ["voxel", "box", "both"])
@pytest.mark.parametrize("views", [VIEWS[:1], VIEWS], ids=["straight", "mirrored"])
def test_maps_on_disk_give_the_same_bytes(route, views, monkeypatch):
    scan = image({**BRIGHT, (20, 8, 25): 0.7})
    expected = detector(route, views=views)(scan, "a")
    monkeypatch.setattr(disk_arrays, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(disk_arrays, "SLAB_BYTES", 9000)
    stream = detector(route, views=views).stream(scan, "a")
    maps = [stream.drawing, stream.lesions, *([stream.disagreement] if stream.has_uncertainty else [])]
    assert stream.has_uncertainty == (route != "box" and views == VIEWS)
    assert all(disk_arrays.is_on_disk(volume.voxels) for volume in maps)
    result = collect_prediction(stream, scan)
    assert result.labels.voxels.tobytes() == expected.labels.voxels.tobytes()
    assert result.probability.voxels.tobytes() == expected.probability.voxels.tobytes()
    assert result.findings == expected.findings and len(result.findings) == 3
    if result.uncertainty is not None:
        assert result.uncertainty.voxels.tobytes() == expected.uncertainty.voxels.tobytes()

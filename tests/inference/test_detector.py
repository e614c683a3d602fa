"""What a detector draws stands on the image's own grid, whatever networks said it and however the windows lay."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.inference.connected_findings import parts
from medssl.inference.detector import Detector, agreed, numbered
from medssl.inference.ensemble import Ensemble
from medssl.inference.lesion_candidates import Candidate, within
from medssl.inference.predictor import Predictor
from medssl.inference.test_time_augmentation import View
from medssl.nn.detection.boxes import Boxes, lesions
from medssl.volume import Volume

BRIGHT = {(12, 14, 20): 0.9, (30, 22, 11): 0.4}
VIEWS = (View(), View((0,)), View((1, 2)))


def image(spots=BRIGHT, shape=(40, 36, 32), spacing=(1.0, 1.0, 1.0)):
    """Balls of radius 3, as bright as the network is to be sure of them."""
    at = np.indices(shape).transpose(1, 2, 3, 0)
    voxels = np.zeros(shape, np.float32)
    for centre, sure in spots.items():
        voxels[np.linalg.norm(at - centre, axis=-1) <= 3] = sure
    return Volume(voxels, np.diag([*spacing, 1.0]), "a.u.")


def voxels(x):
    return torch.cat([1 - x, x], 1)


def boxes(x):
    """Every bright part of a window as a box, as sure as it is bright."""
    said = []
    for one in x[:, 0]:
        found = lesions((one[None] > 0).long())[1][0]
        sides = [tuple(map(slice, row[:3], row[3:])) for row in found.corners.long().tolist()]
        score = [float(one[side].max()) for side in sides]
        said.append(Boxes(found.corners, found.label, torch.tensor(score)))
    return said


def silent(x):
    """No box, whatever the windows show."""
    return [Boxes(torch.zeros(0, 6), torch.zeros(0).long(), torch.zeros(0)) for _ in x]


def detector(route="voxel", **options):
    networks = {"voxel": ((voxels,), ()), "box": ((), (boxes,)), "both": ((voxels,), (boxes,))}[route]
    return Detector(*networks, lambda v: v, (24, 24, 24), {1: "nodule"}, **options)


@pytest.mark.parametrize("route", ["voxel", "box", "both"])
@pytest.mark.parametrize("views", [VIEWS[:1], VIEWS], ids=["straight", "mirrored"])
def test_every_route_finds_both_lesions_where_they_are_and_as_sure_as_it_is(route, views):
    said = detector(route, views=views)(image(), "a")
    found = sorted(said.findings, key=lambda f: -f.score)
    assert len(found) == 2
    for finding, (centre, sure) in zip(found, BRIGHT.items(), strict=True):
        assert np.allclose(finding.centre_mm, centre, atol=0.6)
        assert finding.score == pytest.approx(sure, rel=0.15)
    assert {f.source for f in found} == {"box" if route == "box" else "mask"}
    assert said.labels.unit == "label" and said.probability.unit == "probability"


@pytest.mark.parametrize("route", ["voxel", "box", "both"])
def test_an_empty_volume_and_one_smaller_than_a_window_are_searched_too(route):
    assert detector(route)(image({}), "a").findings == ()
    (only,) = detector(route)(image({(4, 9, 5): 0.8}, (10, 18, 9)), "a").findings
    assert np.allclose(only.centre_mm, (4, 9, 5), atol=0.7)


def test_two_networks_share_their_say_and_a_silent_one_halves_it():
    pair = replace(detector("box"), boxes=(boxes, silent))
    scores = [sorted(f.score for f in one(image(), "a").findings) for one in (detector("box"), pair)]
    assert np.allclose(np.array(scores[0]) / 2, scores[1], rtol=1e-5)


@pytest.mark.parametrize("route", ["voxel", "both"])
def test_the_disagreement_of_looks_is_that_of_an_ensemble(route):
    """Two networks, one of which sees everything at half the strength."""
    pair = replace(detector(route), voxels=(voxels, lambda x: voxels(x / 2)))
    said, alone = pair(image(), "a"), detector(route)(image(), "a")
    assert alone.uncertainty is None
    members = [Predictor(network, lambda v: v, (24, 24, 24), {1: "nodule"}) for network in pair.voxels]
    assert np.allclose(said.uncertainty.voxels, Ensemble(tuple(members))(image(), "a").uncertainty.voxels, atol=2e-3)
    for finding in said.findings:
        number = parts(said.labels.voxels == 1) == int(finding.id[-1])
        assert finding.uncertainty == pytest.approx(said.uncertainty.voxels[number].mean(), abs=1e-4)


def test_mirrors_that_say_the_same_do_not_disagree_and_boxes_have_no_say():
    same = detector(views=VIEWS)(image(), "a")
    assert same.uncertainty.voxels.max() < 1e-3 and max(f.uncertainty for f in same.findings) < 1e-3
    assert detector("box", views=VIEWS)(image(), "a").uncertainty is None


def test_scores_are_told_as_calibrated():
    halved = detector(calibrate=lambda score: score / 2)(image(), "a")
    assert max(f.score for f in halved.findings) == pytest.approx(0.45, abs=0.01)


def test_findings_are_the_parts_of_the_labels_by_number():
    said = detector()(image(), "a")
    numbers = parts(said.labels.voxels == 1)
    assert [f.id for f in said.findings] == ["a-1-1", "a-1-2"] and numbers.max() == 2
    for n, finding in enumerate(said.findings, 1):
        assert np.allclose(said.labels.to_mm(np.argwhere(numbers == n).mean(0)[None])[0], finding.centre_mm)


def test_a_lesion_between_the_slices_of_a_coarse_grid_keeps_a_voxel():
    coarse = Volume(np.zeros((10, 9, 2), np.float32), np.diag([4.0, 4, 20, 1]), "a.u.")
    fine = image({(12, 14, 10): 0.9})
    said = replace(detector(), prepare=lambda v: fine)(coarse, "a")
    assert [round(f.score, 1) for f in said.findings] == [0.9]
    assert said.labels.shape == coarse.shape


def candidate(low, high, score, label=1, shape=(20, 20, 20)):
    return within(np.array([*low, *high], float), label, score, shape)


def test_where_voxels_and_boxes_agree_the_score_is_their_mean_and_alone_each_has_half():
    both, peak, box = (candidate((n, n, n), (n + 4, n + 4, n + 4), 0.8) for n in (0, 6, 12))
    found = agreed([both, peak], [replace(both, score=0.4), box])
    assert [one.score for one in found] == pytest.approx([0.6, 0.4, 0.4])
    assert [one.score for one in agreed([both], [replace(both, label=2)])] == pytest.approx([0.4, 0.4])


def test_candidates_are_drawn_apart_and_the_surer_one_whole():
    first, second = candidate((2, 2, 2), (9, 9, 9), 0.9), candidate((7, 7, 7), (14, 14, 14), 0.5)
    drawn = numbered([first, second], (20, 20, 20))
    assert (drawn == 1).sum() == len(first.voxels)
    assert 0 < (drawn == 2).sum() < len(second.voxels)
    assert parts(drawn > 0).max() == 2


@pytest.mark.parametrize(
    "box", [(3, 3, 3, 3, 3, 3), (8, 8, 8, 2, 2, 2), (30, 30, 30, 40, 40, 40), (-9, 2, 2, -3, 8, 8)]
)
def test_a_degenerate_box_or_one_outside_has_next_to_no_voxels(box):
    one = within(np.array(box, float), 1, 0.5, (20, 20, 20))
    assert isinstance(one, Candidate) and len(one.voxels) <= 1


def test_a_box_over_the_border_is_cut_there():
    one = within(np.array([-4, 5, 5, 6, 15, 15], float), 1, 0.5, (20, 20, 20))
    assert one.voxels.min() == 0 and one.voxels[:, 0].max() == 5


def test_a_box_of_a_voxel_between_voxels_is_still_drawn():
    assert len(within(np.array([3.5, 3.5, 3.5, 4.5, 4.5, 4.5]), 1, 0.5, (20, 20, 20)).voxels) == 1

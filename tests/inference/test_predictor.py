"""The predictor's answers stand on the image's own grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.inference.predictor import Predictor
from medssl.volume import Volume


def scene(spacing=(1.0, 1.0, 2.0), codes="LPS", shift=0.0):
    """A bright ball of known place in the dark, stored in some orientation."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.0, 12.0 + shift, 5.0)
    shape = [int(40 / s) for s in spacing]
    volume = Volume(np.zeros(shape, np.float32), affine, "a.u.")
    at = volume.to_mm(np.indices(shape).reshape(3, -1).T.astype(float))
    centre = volume.to_mm(np.array(shape)[None] * 0.45)[0]
    inside = np.linalg.norm(at - centre, axis=1).reshape(shape) < 9
    return replace(volume, voxels=inside.astype(np.float32)).oriented(codes), centre


def bright(x):
    return torch.cat([1 - x, x], dim=1).clamp(0, 1)


def predictor(spacing_mm=(1.0, 1.0, 2.0), **options):
    plain = {"network": bright, "prepare": lambda v: v.oriented("RAS").resample(spacing_mm, order=1)}
    return Predictor(**plain | {"crop": (16, 16, 16), "names": {1: "ball"}} | options)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "AIL"])
def test_labels_come_back_voxel_for_voxel_whatever_the_orientation(codes):
    image, _ = scene(codes=codes)
    said = predictor()(image, "a")
    assert np.array_equal(said.labels.voxels, image.voxels > 0.5)
    assert np.array_equal(said.labels.affine, image.affine)
    assert (said.labels.unit, said.probability.unit) == ("label", "probability")
    assert np.allclose(said.probability.voxels, image.voxels, atol=1e-3)


@pytest.mark.parametrize("spacing", [(1.3, 0.9, 1.1), (2.0, 2.0, 2.0), (5.0, 4.0, 7.0)])
def test_another_working_spacing_moves_nothing(spacing):
    image, centre = scene()
    said = predictor(spacing_mm=spacing)(image, "a")
    (ball,) = said.findings
    assert said.labels.voxels.shape == image.voxels.shape
    assert np.allclose(ball.centre_mm, centre, atol=0.5 * max(spacing))
    assert ball.volume_ml == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.12 * max(spacing))


def test_the_edge_of_the_image_is_predicted_too():
    image, _ = scene()
    everywhere = replace(image, voxels=np.ones_like(image.voxels))
    assert predictor(spacing_mm=(7.0, 7.0, 7.0))(everywhere, "a").labels.voxels.all()


def test_an_oblique_image_keeps_its_affine_to_the_bit():
    image, centre = scene()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    oblique = replace(image, affine=turn @ image.affine)
    said = predictor(spacing_mm=(1.2, 1.2, 1.2))(oblique, "a")
    assert np.array_equal(said.probability.affine, oblique.affine)
    assert np.allclose(said.findings[0].centre_mm, turn[:3, :3] @ centre, atol=0.5)


def test_channels_reach_the_network():
    image, _ = scene()
    two = replace(image, voxels=np.stack([np.zeros_like(image.voxels), image.voxels]))
    said = predictor(network=lambda x: bright(x[:, 1:]))(two, "a")
    assert np.array_equal(said.labels.voxels, image.voxels > 0.5)


def test_uncertainty_is_the_entropy_in_shares_of_its_maximum():
    image, _ = scene()
    unsure = predictor(network=lambda x: torch.cat([0.4 + 0 * x, 0.6 + 0 * x], 1))(image, "a")
    expected = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6)) / np.log(2)
    assert unsure.findings[0].uncertainty == pytest.approx(expected, abs=1e-3)
    assert unsure.findings[0].score == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("codes", ["RAS", "SRP"])
def test_bringing_back_some_rows_at_a_time_changes_nothing(codes, monkeypatch):
    image, _ = scene(codes=codes)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    image = replace(image, affine=turn @ image.affine)
    said = []
    for rows in (7, 1000):
        monkeypatch.setattr("medssl.inference.predictor.ROWS", rows)
        said.append(predictor(spacing_mm=(1.3, 1.7, 2.2))(image, "a"))
    assert np.array_equal(said[0].labels.voxels, said[1].labels.voxels)
    assert np.allclose(said[0].probability.voxels, said[1].probability.voxels, atol=1e-5)


def test_three_classes_are_told_apart_and_none_is_lost():
    image, _ = scene()
    image.voxels[3:9, 3:9, 3:9] = 2.0

    def three(x):
        bright = torch.cat([x == 0, x == 1, x == 2], 1).float()
        return bright * 0.8 + 0.2 / 3

    said = predictor(network=three, names={1: "ball", 2: "cube"})(image, "a")
    assert np.array_equal(said.labels.voxels, image.voxels)
    assert [f.name for f in said.findings] == ["ball", "cube"]
    assert said.probability.voxels[5, 5, 5] == pytest.approx(0.8 + 0.4 / 3, abs=2e-3)

"""Predictions lie on the grid of the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.volume import Volume


def scene(spacing=(1.0, 1.0, 2.0), codes="LPS", shift=0.0):
    """Returns a bright ball with a known centre, in a given orientation."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.0, 12.0 + shift, 5.0)
    shape = [int(40 / s) for s in spacing]
    volume = Volume(np.zeros(shape, np.float32), affine, "a.u.")
    points_mm = volume.to_mm(np.indices(shape).reshape(3, -1).T.astype(float))
    centre = volume.to_mm(np.array(shape)[None] * 0.45)[0]
    inside = np.linalg.norm(points_mm - centre, axis=1).reshape(shape) < 9
    return replace(volume, voxels=inside.astype(np.float32)).reorient(codes), centre


def bright(x):
    return torch.cat([1 - x, x], dim=1).clamp(0, 1)


def predictor(spacing_mm=(1.0, 1.0, 2.0), network=bright, **options):
    plain = {"prepare": lambda v: v.reorient("RAS").resample(spacing_mm, order=1)}
    return Predictor(TorchNetwork(network), **plain | {"crop": (16, 16, 16), "names": {1: "ball"}} | options)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "AIL"])
def test_labels_match_voxel_for_voxel_in_every_orientation(codes):
    image, _ = scene(codes=codes)
    prediction = predictor()(image, "a")
    assert np.array_equal(prediction.labels.voxels, image.voxels > 0.5)
    assert np.array_equal(prediction.labels.affine, image.affine)
    assert (prediction.labels.unit, prediction.probability.unit) == ("label", "probability")
    assert np.allclose(prediction.probability.voxels, image.voxels, atol=1e-3)


@pytest.mark.parametrize("spacing", [(1.3, 0.9, 1.1), (2.0, 2.0, 2.0), (5.0, 4.0, 7.0)])
def test_working_spacing_does_not_move_findings(spacing):
    image, centre = scene()
    prediction = predictor(spacing_mm=spacing)(image, "a")
    (ball,) = prediction.findings
    assert prediction.labels.voxels.shape == image.voxels.shape
    assert np.allclose(ball.centre_mm, centre, atol=0.5 * max(spacing))
    assert ball.volume_ml == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.12 * max(spacing))


def test_the_edge_of_the_image_is_predicted_too():
    image, _ = scene()
    everywhere = replace(image, voxels=np.ones_like(image.voxels))
    assert predictor(spacing_mm=(7.0, 7.0, 7.0))(everywhere, "a").labels.voxels.all()


def test_an_oblique_image_keeps_its_affine_to_the_bit():
    image, centre = scene()
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    oblique = replace(image, affine=rotation @ image.affine)
    prediction = predictor(spacing_mm=(1.2, 1.2, 1.2))(oblique, "a")
    assert np.array_equal(prediction.probability.affine, oblique.affine)
    assert np.allclose(prediction.findings[0].centre_mm, rotation[:3, :3] @ centre, atol=0.5)


def test_channels_reach_the_network():
    image, _ = scene()
    two_channels = replace(image, voxels=np.stack([np.zeros_like(image.voxels), image.voxels]))
    prediction = predictor(network=lambda x: bright(x[:, 1:]))(two_channels, "a")
    assert np.array_equal(prediction.labels.voxels, image.voxels > 0.5)


def test_uncertainty_is_the_normalized_entropy():
    image, _ = scene()
    prediction = predictor(network=lambda x: torch.cat([0.4 + 0 * x, 0.6 + 0 * x], 1))(image, "a")
    expected = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6)) / np.log(2)
    assert prediction.findings[0].uncertainty == pytest.approx(expected, abs=1e-3)
    assert prediction.findings[0].score == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("codes", ["RAS", "SRP"])
def test_block_size_of_resampling_does_not_matter(codes, monkeypatch):
    image, _ = scene(codes=codes)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    image = replace(image, affine=rotation @ image.affine)
    predictions = []
    for rows in (7, 1000):
        monkeypatch.setattr("medssl.inference.findings.runs.SLICES_PER_BLOCK", rows)
        predictions.append(predictor(spacing_mm=(1.3, 1.7, 2.2))(image, "a"))
    assert np.array_equal(predictions[0].labels.voxels, predictions[1].labels.voxels)
    assert np.allclose(predictions[0].probability.voxels, predictions[1].probability.voxels, atol=1e-5)


def test_three_classes_are_all_predicted():
    image, _ = scene()
    image.voxels[3:9, 3:9, 3:9] = 2.0

    def three(x):
        bright = torch.cat([x == 0, x == 1, x == 2], 1).float()
        return bright * 0.8 + 0.2 / 3

    prediction = predictor(network=three, names={1: "ball", 2: "cube"})(image, "a")
    assert np.array_equal(prediction.labels.voxels, image.voxels)
    assert [f.name for f in prediction.findings] == ["ball", "cube"]
    assert prediction.probability.voxels[5, 5, 5] == pytest.approx(0.8 + 0.4 / 3, abs=2e-3)

"""Predictions of members and mirrored views are averaged, and their disagreement is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor, apply_temperature
from medssl.inference.test_time_augmentation import MirrorView, mirror_views
from medssl.volume import Volume

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
AXES = st.sets(st.integers(0, 2))


def image(shape=(20, 18, 17), seed=0):
    return Volume(np.random.default_rng(seed).random(shape).astype(np.float32), AFFINE, "a.u.")


def constant(p):
    return lambda x: torch.cat([1 - p + 0 * x, p + 0 * x], 1)


def bright(x):
    return torch.cat([1 - x, x], 1)


def member(network=bright, **options):
    plain = {"prepare": lambda volume: volume, "crop": (8, 8, 8), "names": {1: "ball"}}
    return Predictor(TorchNetwork(network), **plain | options)


@given(AXES, st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_voxelwise_network_predicts_the_same_in_every_view(axes, seed):
    volume = image((11, 9, 13), seed)
    alone = member()(volume, "a")
    mirrored = Ensemble((member(),), mirror_views(sorted(axes), {1: "ball"}))(volume, "a")
    assert np.array_equal(mirrored.labels.voxels, alone.labels.voxels)
    assert np.allclose(mirrored.probability.voxels, alone.probability.voxels, atol=1e-3)
    assert mirrored.uncertainty.voxels.max() < 1e-3


def test_one_member_in_one_view_is_the_member_to_the_bit():
    volume = image()
    alone, pooled = member()(volume, "a"), Ensemble((member(),))(volume, "a")
    assert np.array_equal(pooled.probability.voxels, alone.probability.voxels)
    assert np.array_equal(pooled.labels.voxels, alone.labels.voxels)


def test_mean_does_not_depend_on_the_crops():
    prediction = Ensemble((member(constant(0.9)), member(constant(0.2), crop=(16, 16, 12))))(image(), "a")
    assert np.allclose(prediction.probability.voxels, 0.55, atol=1e-3)
    assert prediction.labels.voxels.all()


def test_disagreement_is_the_entropy_of_the_mean_less_the_mean_entropy():
    def entropy(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    prediction = Ensemble((member(constant(0.9)), member(constant(0.2))))(image(), "a")
    expected = (entropy(0.55) - (entropy(0.9) + entropy(0.2)) / 2) / np.log(2)
    assert np.allclose(prediction.uncertainty.voxels, expected, atol=1e-3)
    assert prediction.findings[0].uncertainty == pytest.approx(expected, abs=1e-3)


def test_disagreement_is_full_for_opposite_members_and_zero_for_equal_ones():
    odds = Ensemble((member(constant(0.0)), member(constant(1.0))))(image(), "a")
    unsure = Ensemble((member(constant(0.5)), member(constant(0.5))))(image(), "a")
    assert np.allclose(odds.uncertainty.voxels, 1, atol=1e-3)
    assert unsure.uncertainty.voxels.max() < 1e-3


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)])
def test_mirrored_prediction_is_mapped_back(axes):
    """A position-dependent network reveals errors in either direction of the mapping."""
    volume = image((12, 10, 9))

    def ramp(x):
        along = torch.linspace(0.1, 0.9, x.shape[2])[:, None, None].expand_as(x)
        return torch.cat([1 - along, along], 1)

    predictor = member(ramp, crop=(12, 10, 9))
    (plain, _), (mirrored, _) = (
        Ensemble((predictor,), (view,)).predict_mean_and_disagreement(volume.voxels)
        for view in (MirrorView(), MirrorView(axes))
    )
    assert np.allclose(mirrored, np.flip(plain, [axis - 3 for axis in axes]), atol=1e-5)
    assert np.allclose(mirrored, plain, atol=1e-5) == (0 not in axes)


def test_left_and_right_classes_are_swapped_in_the_mirror():
    names = {1: "left kidney", 2: "Right Kidney", 3: "spine"}
    assert mirror_views((0,), names) == (MirrorView(), MirrorView((0,), (0, 2, 1, 3)))
    half = np.zeros((8, 4, 4), np.float32)
    half[:4] = 1

    def predict_sides(x):
        """Predicts the side of the crop, as a network that has learnt sides does."""
        left_half = torch.zeros_like(x)
        left_half[:, :, :4] = 1
        return torch.cat([0 * x, left_half, 1 - left_half, 0 * x], 1)

    predictor = member(predict_sides, crop=(8, 4, 4), names=names)
    prediction = Ensemble((predictor,), mirror_views((0,), names))(Volume(half, AFFINE, "a.u."), "a")
    assert (prediction.labels.voxels[:4] == 1).all() and (prediction.labels.voxels[4:] == 2).all()
    assert prediction.uncertainty.voxels.max() < 1e-3


def test_sides_without_a_pair_are_never_mirrored():
    assert mirror_views((0, 1), {1: "left lung"}) == (MirrorView(), MirrorView((1,)))
    assert len(mirror_views((0, 1, 2), {1: "nodule"})) == 8


@given(st.floats(0.05, 20), st.integers(0, 99))
def test_tempering_keeps_the_order_of_classes_and_a_sum_of_one(temperature, seed):
    p = softmax(np.random.default_rng(seed).random((4, 50)).astype(np.float32), axis=0)
    tempered = apply_temperature(p, temperature)
    assert np.array_equal(tempered.argmax(0), p.argmax(0))
    assert np.allclose(tempered.sum(0), 1, atol=1e-4)


def test_a_temperature_of_one_is_none_to_the_bit():
    p = softmax(np.random.default_rng(0).random((3, 40)).astype(np.float32), axis=0)
    assert apply_temperature(p, 1.0) is p
    volume = image()
    plain, tempered = member()(volume, "a"), member(temperature=1.0)(volume, "a")
    assert np.array_equal(plain.probability.voxels, tempered.probability.voxels)
    flattened = member(temperature=3.0)(volume, "a")
    is_clear = np.abs(plain.probability.voxels - 0.5) > 1e-2
    assert np.array_equal(flattened.labels.voxels[is_clear], plain.labels.voxels[is_clear])
    assert flattened.probability.voxels.std() < plain.probability.voxels.std() / 2


def test_a_temperature_divides_logits():
    logits = (np.random.default_rng(0).normal(size=(3, 100)) * 3).astype(np.float32)
    assert np.allclose(apply_temperature(softmax(logits, 0), 2.5), softmax(logits / 2.5, 0), atol=1e-4)


def test_channels_reach_every_member():
    volume = image()
    two_channels = replace(volume, voxels=np.stack([np.zeros_like(volume.voxels), volume.voxels]))
    prediction = Ensemble((member(lambda x: bright(x[:, 1:])),), mirror_views((0, 2), {1: "ball"}))(two_channels, "a")
    assert np.allclose(prediction.probability.voxels, volume.voxels, atol=1e-3)

"""Augmentation is pure and keeps the range; labels stay label values and move with the image."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional
from torch.nn.functional import grid_sample

from medssl.data.transforms import augmentation
from medssl.data.transforms.augmentation import (
    AugmentConfig,
    draw_spatial_transform,
    make_blur,
    make_coarse_scan,
    multiply_axes,
    multiply_axis,
)
from medssl.data.transforms.augmentation import augment as augment_scan

ALWAYS = AugmentConfig(probability=1.0, flip=(True, True, True))
NEVER = AugmentConfig(probability=0.0, flip=(False, False, False))


NO_CHANGE = {"rotate_deg": 0, "scale": 0, "elastic": 0, "gamma": 0, "contrast": 0, "brightness": 0, "noise": 0}
NO_CHANGE |= {"blur": 0, "zoom": 1, "probability": 1.0, "flip": (False, False, False)}


def make_crop(seed=0, shape=(12, 14, 10)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, *shape, generator=generator), torch.randint(0, 4, shape, generator=generator)


def cut(x, corner, size, fill=0):
    """Cuts a box that may reach beyond an array."""
    padded = torch.full((*x.shape[:-3], *size), fill, dtype=x.dtype)
    inside = [slice(max(0, c), min(n, c + s)) for n, c, s in zip(x.shape[-3:], corner, size, strict=True)]
    place = [slice(a.start - c, a.stop - c) for a, c in zip(inside, corner, strict=True)]
    padded[(..., *place)] = x[(..., *inside)]
    return padded


def augment(config, x, label, generator, spacing_mm=(1.0, 1.0, 1.0)):
    """Augments a whole scan, beyond which there is nothing."""

    def read(corner, size):
        return cut(x, corner, size), None if label is None else cut(label, corner, size)

    return augment_scan(config, read, tuple(x.shape[1:]), spacing_mm, generator)


def resample(transform, read):
    """Resamples the box of a scan that a transform needs."""
    corner, shape = transform.find_box()
    return transform.resample(corner, *read(corner, shape))


def make_generator(seed):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.tuples(*[st.integers(3, 16)] * 3))
def test_values_stay_in_range_and_labels_stay_label_values(seed, shape):
    x, label = make_crop(shape=shape)
    x_, label_ = augment(ALWAYS, x, label, make_generator(seed))
    assert x_.shape == x.shape and x_.min() >= 0 and x_.max() <= 1
    assert label_.shape == label.shape and label_.dtype == label.dtype and set(label_.unique().tolist()) <= {0, 1, 2, 3}


def test_the_generator_decides_everything():
    x, label = make_crop()
    before = x.clone(), label.clone()
    (a, y), (b, z) = (augment(ALWAYS, x, label, make_generator(5)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(y, z)
    assert not torch.equal(a, augment(ALWAYS, x, label, make_generator(6))[0])
    assert torch.equal(x, before[0]) and torch.equal(label, before[1])


def test_nothing_changes_with_probability_zero():
    x, label = make_crop()
    x_, label_ = augment(NEVER, x, label, make_generator(0))
    assert torch.equal(x, x_) and torch.equal(label, label_)


@pytest.mark.parametrize("axis", range(3))
def test_an_axis_that_is_switched_off_is_never_flipped(axis):
    x, _ = make_crop()
    config = NEVER.model_copy(update={"flip": tuple(a != axis for a in range(3))})
    others = [-3 + a for a in range(3) if a != axis]
    allowed = [x, x.flip(others[:1]), x.flip(others[1:]), x.flip(others)]
    flips = {
        next(i for i, a in enumerate(allowed) if torch.equal(a, augment(config, x, None, make_generator(s))[0]))
        for s in range(40)
    }
    assert flips == {0, 1, 2, 3}


@pytest.mark.parametrize("shape", [(24, 24, 24), (32, 20, 26)])
def test_image_and_label_move_together(shape):
    label = torch.zeros(shape, dtype=torch.long)
    label[4:12, 6:15, 5:13] = 1
    config = AugmentConfig(
        probability=1.0, flip=(True, True, True), gamma=0, contrast=0, brightness=0, noise=0, blur=0, zoom=1
    )
    for seed in range(10):
        x, moved = augment(config, label[None].float(), label, make_generator(seed))
        overlap = 2 * ((x[0] > 0.5) & (moved == 1)).sum() / ((x[0] > 0.5).sum() + (moved == 1).sum())
        assert overlap > 0.95 and moved.sum() > 0


def make_ball(shape, spacing_mm, radius_mm, offset_mm=(0, 0, 0)):
    """Returns a ball with a soft edge, near the centre of a grid."""
    axes = [(torch.arange(n) - (n - 1) / 2) * mm - o for n, mm, o in zip(shape, spacing_mm, offset_mm, strict=True)]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    return ((radius_mm - distance) / max(spacing_mm) + 0.5).clamp(0, 1)[None]


def compute_spread_mm(x, spacing_mm):
    """Returns the standard deviation along each axis and the correlations, in mm, of a distribution of mass."""
    mass = x[0] / x[0].sum()
    axes = [torch.arange(n) * mm for n, mm in zip(mass.shape, spacing_mm, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).double()
    weight = mass.flatten().double()
    centred = points - (points * weight).sum(1, keepdim=True)
    return (centred * weight) @ centred.T


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.5), (3.0, 1.5, 1.0), (0.8, 0.8, 5.0)])
def test_a_ball_stays_a_ball_in_mm_under_any_turn(spacing_mm):
    """All axes turn by up to 90 degrees, thick slices too if each axis has a value of its own."""
    shape = tuple(round(48 / mm) for mm in spacing_mm)
    x = make_ball(shape, spacing_mm, 14.0)
    still = compute_spread_mm(x, spacing_mm)
    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": (90, 90, 90)})
    for seed in range(4):
        turned, _ = augment(config, x, None, make_generator(seed), spacing_mm)
        assert not torch.allclose(turned, x, atol=1e-3) or max(spacing_mm) == 1
        assert torch.allclose(
            compute_spread_mm(turned, spacing_mm), still, atol=0.04 * still[0, 0].item() + max(spacing_mm) ** 2 / 8
        )


@pytest.mark.parametrize("thick", range(3))
@pytest.mark.parametrize("name", ["rotate_deg", "scale", "elastic"])
def test_thick_slices_change_in_their_plane_only(thick, name):
    """Each voxel is read from its own slice, and the same place of all slices; a value for each axis changes that."""
    spacing_mm = tuple(3.0 if axis == thick else 1.0 for axis in range(3))
    strength = {"rotate_deg": 30.0, "scale": 0.3, "elastic": 0.2}[name]
    for value, is_spared in ((strength, True), ((strength,) * 3, False)):
        config = AugmentConfig(**NO_CHANGE | {name: value})
        transform = draw_spatial_transform(config, (12, 12, 12), spacing_mm, make_generator(1))
        positions = transform.source_positions()
        own_slice = torch.arange(12.0).view([12 if axis == thick else 1 for axis in range(3)])
        assert torch.allclose(positions[thick], own_slice.expand(12, 12, 12), atol=1e-4) == is_spared
        in_plane = positions[[axis for axis in range(3) if axis != thick]]
        assert (in_plane.std(1 + thick).max() < 1e-4) == is_spared or name == "scale"


def test_voxels_less_than_three_times_as_long_are_turned_about_all_axes():
    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": 30.0})
    positions = draw_spatial_transform(config, (12, 12, 12), (1.0, 1.0, 2.9), make_generator(1)).source_positions()
    assert (positions[2] - torch.arange(12.0)).abs().max() > 0.5


def test_one_axis_can_be_spared():
    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": (0, 0, 20), "scale": (0.2, 0, 0), "elastic": (0.1, 0.1, 0)})
    positions = draw_spatial_transform(config, (10, 12, 14), (1.0, 1.0, 1.0), make_generator(1)).source_positions()
    assert torch.allclose(positions[2], torch.arange(14.0).expand(10, 12, 14), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), ratio=st.sampled_from([1.0, 2.0, 5.0]))
def test_nothing_enters_a_crop_but_the_scan(seed, ratio):
    """The scan is 0.5 and label 1 wherever it is, and reaches far beyond the crop."""
    size = (16, 12, 8)
    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": 40, "scale": 0.3, "elastic": 0.2})
    boxes = []

    def read(corner, shape):
        boxes.append((corner, shape))
        return torch.full((1, *shape), 0.5), torch.ones(shape, dtype=torch.long)

    x, label = augment_scan(config, read, size, (1.0, 1.0, ratio), make_generator(seed))
    assert x.shape == (1, *size) and (x - 0.5).abs().max() < 1e-6 and (label == 1).all()
    ((corner, shape),) = boxes
    assert max(shape) <= 4 * max(size) and min(corner) >= -3 * max(size)


def test_an_augmented_place_is_the_place_in_the_scan():
    """A scan whose intensity is linear in position is read exactly, also outside the crop."""
    size, direction = (10, 12, 8), torch.tensor([0.3, -0.5, 0.2])
    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": 30, "scale": 0.2, "elastic": 0.1})

    def intensity(positions):
        return 0.5 + 0.01 * torch.einsum("a,aijk->ijk", direction, positions)

    def read(corner, shape):
        axes = [torch.arange(c, c + n).float() for c, n in zip(corner, shape, strict=True)]
        return intensity(torch.stack(torch.meshgrid(*axes, indexing="ij")))[None], None

    for seed in range(4):
        transform = draw_spatial_transform(config, size, (1.0, 1.5, 2.0), make_generator(seed))
        expected = intensity(transform.source_positions())
        assert torch.allclose(resample(transform, read)[0][0], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("blur", 2.0), ("zoom", 0.25)])
def test_a_blurred_point_is_round_in_mm(name, value):
    """A point spreads equally in mm along all axes; across slices of 4 mm it hardly spreads at all."""
    spacing_mm = (1.0, 2.0, 4.0)
    x = make_ball((33, 17, 9), spacing_mm, 6.0)
    config = AugmentConfig(**NO_CHANGE | {name: value})
    before = compute_spread_mm(x, spacing_mm).diag()
    grown = torch.stack(
        [
            compute_spread_mm(augment(config, x, None, make_generator(s), spacing_mm)[0], spacing_mm).diag() - before
            for s in range(6)
        ]
    )
    assert grown.max() > 0.5
    if name == "blur":
        strong = grown[grown[:, 0].argmax()]
        assert strong[1].item() == pytest.approx(strong[0].item(), rel=0.35)
    assert (grown[:, 2] <= grown[:, 0] + 0.1).all()


def test_a_coarser_scan_does_not_shift_the_image():
    coordinates = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    x = (-((coordinates - 11.5) ** 2).sum(0) / 40).exp()[None]
    config = AugmentConfig(
        probability=1.0,
        flip=(False,) * 3,
        rotate_deg=0,
        scale=0,
        elastic=0,
        gamma=0,
        contrast=0,
        brightness=0,
        noise=0,
        blur=0,
    )
    for seed in range(40):
        image = augment(config, x, None, make_generator(seed))[0][0]
        assert ((coordinates * image).sum((1, 2, 3)) / image.sum()).tolist() == pytest.approx([11.5] * 3, abs=0.02)


GEOMETRIC = {"rotate_deg": 15, "scale": 0.15, "elastic": 0.1}
INTENSITY = {"gamma": 0.3, "contrast": 0.25, "brightness": 0.1, "noise": 0.05, "blur": 2.0, "zoom": 0.5}


@pytest.mark.parametrize("name", [*GEOMETRIC, *INTENSITY])
def test_each_change_acts_alone(name):
    """Geometric changes move the label too, intensity changes never do."""
    x, label = make_crop(shape=(16, 16, 16))
    unchanged, _ = augment(AugmentConfig(**NO_CHANGE), x, label, make_generator(1))
    config = AugmentConfig(**NO_CHANGE | {name: (GEOMETRIC | INTENSITY)[name]})
    augmented = [augment(config, x, label, make_generator(seed)) for seed in range(8)]
    assert sum(not torch.allclose(x_, unchanged, atol=1e-3) for x_, _ in augmented) > 6
    assert all(torch.equal(y, label) for _, y in augmented) == (name in INTENSITY)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.tuples(*[st.integers(8, 40)] * 3))
def test_an_elastic_deformation_never_folds(seed, shape):
    """Coordinates keep their order along every axis."""
    config = AugmentConfig(**NO_CHANGE | {"elastic": 0.2})
    coordinates = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, n) for n in shape], indexing="ij"))
    *moved, inside = augment(config, torch.cat([coordinates, torch.ones(1, *shape)]), None, make_generator(seed))[0]
    for axis in range(3):
        n = shape[axis] - 1
        both = (inside > 0.999).narrow(axis, 0, n) & (inside > 0.999).narrow(axis, 1, n)
        assert (moved[axis].diff(dim=axis)[both] > 0).all()


def test_a_mirror_exchanges_left_and_right():
    label = torch.zeros(8, 8, 8, dtype=torch.long)
    label[:2], label[6:], label[3:5] = 1, 4, 3
    config = AugmentConfig(**NO_CHANGE | {"flip": (True, True, True), "left_right_pairs": ((1, 4),)})
    outcomes = set()
    for seed in range(10):
        x, y = augment(config, label[None].float() / 4, label, make_generator(seed))
        mirrored = bool((x[0, 0] > 0.9).all())
        outcomes.add(mirrored)
        assert (y[:2] == 1).all() and (y[6:] == 4).all() and (y[3:5] == 3).all()
    assert outcomes == {True, False}


def test_without_pairs_a_mirror_keeps_label_values():
    label = torch.zeros(8, 8, 8, dtype=torch.long)
    label[:2] = 1
    config = AugmentConfig(**NO_CHANGE | {"flip": (True, False, False)})
    assert {int(augment(config, label[None].float(), label, make_generator(s))[1][0, 0, 0]) for s in range(10)} == {
        0,
        1,
    }


def test_unknown_voxels_stay_unknown():
    x, label = make_crop(shape=(16, 16, 16))
    label[:8] = -1
    for seed in range(5):
        _, moved = augment(ALWAYS, x, label, make_generator(seed))
        assert set(moved.unique().tolist()) == {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.5, 2.0), (1.0, 1.0, 5.0)])
@pytest.mark.parametrize("seed", range(3))
def test_resampling_agrees_with_torch(seed, spacing_mm):
    """Linear for all channels, nearest for labels, on noise, in which every misplaced voxel shows."""
    scan, scan_label = make_crop(shape=(60, 70, 50))
    box = {}

    def read(corner, shape):
        box["corner"] = torch.tensor(corner)[:, None, None, None]
        box["x"], box["label"] = (cut(volume, [20 + c for c in corner], shape) for volume in (scan, scan_label))
        return box["x"], box["label"]

    config = AugmentConfig(**NO_CHANGE | {"rotate_deg": 30, "scale": 0.2, "elastic": 0.2})
    transform = draw_spatial_transform(config, (14, 18, 9), spacing_mm, make_generator(seed))
    x, label = resample(transform, read)
    last = torch.tensor(box["x"].shape[1:])[:, None, None, None] - 1
    grid = (2 * (transform.source_positions() - box["corner"]) / last - 1).flip(0).movedim(0, -1)[None]
    options = {"padding_mode": "border", "align_corners": True}
    assert torch.allclose(x, grid_sample(box["x"][None], grid, **options)[0], atol=1e-3)
    nearest = grid_sample(box["label"][None, None].float(), grid, mode="nearest", **options)[0, 0]
    assert (label == nearest).float().mean() > 0.999


@pytest.mark.parametrize("sigma", [0.4, 1.0, 9.0])
def test_a_blur_is_a_gaussian_that_repeats_the_last_voxels(sigma):
    x, spacing_mm = torch.rand(2, 7, 12, 9, generator=make_generator(1)), (1.0, 1.0, 2.0)
    config = AugmentConfig(**NO_CHANGE | {"blur": 2 * sigma})
    with mock.patch.object(augmentation, "draw_uniform_number", return_value=sigma):
        matrices = make_blur(config, x.shape[1:], spacing_mm, make_generator(0))
    expected = x.numpy()
    for axis, mm in enumerate(spacing_mm, 1):
        radius = math.ceil(2 * sigma / mm)
        expected = ndimage.gaussian_filter1d(expected, sigma / mm, axis, mode="nearest", radius=radius)
    for axis, matrix in enumerate(matrices):
        x = multiply_axis(matrix, x, axis)
    assert np.allclose(x, expected, atol=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 1.0, 3.0)])
def test_a_coarse_scan_is_resampled_to_it_and_back(spacing_mm):
    x, zoom = torch.rand(2, 11, 16, 6, generator=make_generator(1)), 0.61
    with mock.patch.object(augmentation, "draw_uniform_number", return_value=zoom):
        matrices = make_coarse_scan(AugmentConfig(), x.shape[1:], spacing_mm, make_generator(0))
    coarse_mm = min(spacing_mm) / zoom
    shape = [round(n * min(1, mm / coarse_mm)) for n, mm in zip(x.shape[1:], spacing_mm, strict=True)]
    coarse = functional.interpolate(x[None], size=shape, mode="trilinear")
    expected = functional.interpolate(coarse, size=x.shape[1:], mode="trilinear")[0]
    for axis, matrix in enumerate(matrices):
        x = multiply_axis(matrix, x, axis)
    assert shape[0] < 11 and torch.allclose(x, expected, atol=1e-5)


def test_blur_and_coarse_scan_together_act_one_after_the_other():
    config = AugmentConfig(**NO_CHANGE | {"probability": 1, "blur": 1.5, "zoom": 0.5})
    x, spacing_mm = torch.rand(1, 9, 10, 12, generator=make_generator(1)), (1.0, 1.0, 1.5)
    both = multiply_axes(augmentation._draw_quality(config, x.shape[1:], spacing_mm, make_generator(3)), x)
    generator = make_generator(3)
    torch.rand(2, generator=generator)  # whether both are due
    for make in (make_blur, make_coarse_scan):
        for axis, matrix in enumerate(make(config, x.shape[1:], spacing_mm, generator)):
            x = multiply_axis(matrix, x, axis)
    assert torch.allclose(both, x, atol=1e-5)

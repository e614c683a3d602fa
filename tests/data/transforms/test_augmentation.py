"""Augmentation is pure and keeps the range; labels stay label values and move with the image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.transforms.augmentation import AugmentConfig, augment

ALWAYS = AugmentConfig(probability=1.0, flip=(True, True, True))
NEVER = AugmentConfig(probability=0.0, flip=(False, False, False))


def make_crop(seed=0, shape=(12, 14, 10)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, *shape, generator=generator), torch.randint(0, 4, shape, generator=generator)


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


def test_a_rotation_keeps_lengths_in_a_crop_that_is_no_cube():
    x = torch.zeros(1, 40, 20, 20)
    x[0, 17:23, 7:13, 7:13] = 1
    config = AugmentConfig(
        probability=1.0,
        flip=(False,) * 3,
        rotate_deg=90,
        scale=0,
        elastic=0,
        gamma=0,
        contrast=0,
        brightness=0,
        noise=0,
        blur=0,
        zoom=1,
    )
    for seed in range(10):
        assert augment(config, x, None, make_generator(seed))[0].sum().item() == pytest.approx(x.sum().item(), rel=0.1)


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


NO_CHANGE = {"rotate_deg": 0, "scale": 0, "elastic": 0, "gamma": 0, "contrast": 0, "brightness": 0, "noise": 0}
NO_CHANGE |= {"blur": 0, "zoom": 1, "probability": 1.0, "flip": (False, False, False)}
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

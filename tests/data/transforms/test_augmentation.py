"""Augmentation: pure, within range, labels whole and moving with the image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.transforms.augmentation import Augment, augment

ALWAYS = Augment(share=1.0, flip=(True, True, True))
STILL = Augment(share=0.0, flip=(False, False, False))


def crop(seed=0, shape=(12, 14, 10)):
    source = torch.Generator().manual_seed(seed)
    return torch.rand(2, *shape, generator=source), torch.randint(0, 4, shape, generator=source)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.tuples(*[st.integers(3, 16)] * 3))
def test_values_stay_in_range_and_labels_stay_labels(seed, shape):
    x, label = crop(shape=shape)
    x_, label_ = augment(ALWAYS, x, label, seeded(seed))
    assert x_.shape == x.shape and x_.min() >= 0 and x_.max() <= 1
    assert label_.shape == label.shape and label_.dtype == label.dtype and set(label_.unique().tolist()) <= {0, 1, 2, 3}


def test_the_generator_decides_everything():
    x, label = crop()
    before = x.clone(), label.clone()
    (a, y), (b, z) = (augment(ALWAYS, x, label, seeded(5)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(y, z)
    assert not torch.equal(a, augment(ALWAYS, x, label, seeded(6))[0])
    assert torch.equal(x, before[0]) and torch.equal(label, before[1])


def test_nothing_changes_when_nothing_is_switched_on():
    x, label = crop()
    x_, label_ = augment(STILL, x, label, seeded(0))
    assert torch.equal(x, x_) and torch.equal(label, label_)


@pytest.mark.parametrize("axis", range(3))
def test_an_axis_that_is_switched_off_is_never_flipped(axis):
    x, _ = crop()
    how = STILL.model_copy(update={"flip": tuple(a != axis for a in range(3))})
    others = [-3 + a for a in range(3) if a != axis]
    allowed = [x, x.flip(others[:1]), x.flip(others[1:]), x.flip(others)]
    seen = {
        next(i for i, a in enumerate(allowed) if torch.equal(a, augment(how, x, None, seeded(s))[0])) for s in range(40)
    }
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("shape", [(24, 24, 24), (32, 20, 26)])
def test_image_and_label_move_together(shape):
    label = torch.zeros(shape, dtype=torch.long)
    label[4:12, 6:15, 5:13] = 1
    how = Augment(share=1.0, flip=(True, True, True), gamma=0, contrast=0, brightness=0, noise=0, blur=0, zoom=1)
    for seed in range(10):
        x, moved = augment(how, label[None].float(), label, seeded(seed))
        overlap = 2 * ((x[0] > 0.5) & (moved == 1)).sum() / ((x[0] > 0.5).sum() + (moved == 1).sum())
        assert overlap > 0.95 and moved.sum() > 0


def test_a_turn_keeps_lengths_in_a_crop_that_is_no_cube():
    x = torch.zeros(1, 40, 20, 20)
    x[0, 17:23, 7:13, 7:13] = 1
    how = Augment(
        share=1.0, flip=(False,) * 3, rotate_deg=90, scale=0, elastic=0, gamma=0, contrast=0, brightness=0, noise=0,
        blur=0, zoom=1,
    )  # fmt: skip
    for seed in range(10):
        assert augment(how, x, None, seeded(seed))[0].sum().item() == pytest.approx(x.sum().item(), rel=0.1)


def test_a_coarser_scan_does_not_shift_the_image():
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    x = (-((at - 11.5) ** 2).sum(0) / 40).exp()[None]
    how = Augment(
        share=1.0, flip=(False,) * 3, rotate_deg=0, scale=0, elastic=0, gamma=0, contrast=0, brightness=0, noise=0,
        blur=0,
    )  # fmt: skip
    for seed in range(40):
        seen = augment(how, x, None, seeded(seed))[0][0]
        assert ((at * seen).sum((1, 2, 3)) / seen.sum()).tolist() == pytest.approx([11.5] * 3, abs=0.02)


NOTHING = {"rotate_deg": 0, "scale": 0, "elastic": 0, "gamma": 0, "contrast": 0, "brightness": 0, "noise": 0}
NOTHING |= {"blur": 0, "zoom": 1, "share": 1.0, "flip": (False, False, False)}
SHAPES = {"rotate_deg": 15, "scale": 0.15, "elastic": 0.1}
LOOKS = {"gamma": 0.3, "contrast": 0.25, "brightness": 0.1, "noise": 0.05, "blur": 2.0, "zoom": 0.5}


@pytest.mark.parametrize("name", [*SHAPES, *LOOKS])
def test_each_change_does_its_own_part(name):
    """Changes of place move the label too, changes of look never do."""
    x, label = crop(shape=(16, 16, 16))
    still, _ = augment(Augment(**NOTHING), x, label, seeded(1))
    how = Augment(**NOTHING | {name: (SHAPES | LOOKS)[name]})
    moved = [augment(how, x, label, seeded(seed)) for seed in range(8)]
    assert sum(not torch.allclose(x_, still, atol=1e-3) for x_, _ in moved) > 6
    assert all(torch.equal(y, label) for _, y in moved) == (name in LOOKS)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.tuples(*[st.integers(8, 40)] * 3))
def test_a_bend_never_folds(seed, shape):
    """Along every axis, what was in front stays in front."""
    how = Augment(**NOTHING | {"elastic": 0.2})
    at = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, n) for n in shape], indexing="ij"))
    *moved, inside = augment(how, torch.cat([at, torch.ones(1, *shape)]), None, seeded(seed))[0]
    for axis in range(3):
        n = shape[axis] - 1
        both = (inside > 0.999).narrow(axis, 0, n) & (inside > 0.999).narrow(axis, 1, n)
        assert (moved[axis].diff(dim=axis)[both] > 0).all()


def test_left_and_right_change_places_in_a_mirror():
    label = torch.zeros(8, 8, 8, dtype=torch.long)
    label[:2], label[6:], label[3:5] = 1, 4, 3
    how = Augment(**NOTHING | {"flip": (True, True, True), "swap": ((1, 4),)})
    seen = set()
    for seed in range(10):
        x, y = augment(how, label[None].float() / 4, label, seeded(seed))
        mirrored = bool((x[0, 0] > 0.9).all())
        seen.add(mirrored)
        assert (y[:2] == 1).all() and (y[6:] == 4).all() and (y[3:5] == 3).all()
    assert seen == {True, False}


def test_without_a_swap_a_mirror_keeps_the_names():
    label = torch.zeros(8, 8, 8, dtype=torch.long)
    label[:2] = 1
    how = Augment(**NOTHING | {"flip": (True, False, False)})
    assert {int(augment(how, label[None].float(), label, seeded(s))[1][0, 0, 0]) for s in range(10)} == {0, 1}


def test_unknown_voxels_stay_unknown():
    x, label = crop(shape=(16, 16, 16))
    label[:8] = -1
    for seed in range(5):
        _, moved = augment(ALWAYS, x, label, seeded(seed))
        assert set(moved.unique().tolist()) == {-1, 0, 1, 2, 3}

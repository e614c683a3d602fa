"""Slabs keep their order, the classes are what was shown, and a head that forgets the order stays at chance."""

import math

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives.known_changes.order import ARRANGEMENTS, Config, Order, arrange


def objective(**settings):
    torch.manual_seed(0)
    return Order(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("axis", ["i", "j", "k"])
def test_slabs_follow_each_other_along_the_axis_without_overlap(axis):
    dim = "ijk".index(axis)
    shape = [16, 16, 16]
    shape[dim] = 30
    place = torch.arange(30.0).view([-1 if n == dim else 1 for n in range(3)]).expand(shape)
    slabs = objective(axis=axis).cut_slabs(place[None, None].repeat(6, 1, 1, 1, 1), generator())
    shape[dim] = 8
    assert slabs.shape == (6, 3, 1, *shape)
    first, last = slabs.flatten(2).amin(2), slabs.flatten(2).amax(2)
    assert (last - first == 7).all() and (first[:, 1:] > last[:, :-1]).all()
    assert len(first[:, 0].unique()) > 1  # the gaps are random


def test_every_crop_is_shown_in_order_reversed_and_shuffled():
    embedded = torch.arange(3.0)[None, :, None].repeat(50, 1, 1)
    shown, target = arrange(embedded, generator())
    orders = [tuple(row) for row in shown[..., 0].int().tolist()]
    by_class = [{order for order, t in zip(orders, target.tolist(), strict=True) if t == n} for n in range(3)]
    assert by_class[0] == {(0, 1, 2)} and by_class[1] == {(2, 1, 0)}
    assert by_class[2] == set(ARRANGEMENTS[2]) and len(by_class[2]) == 4
    assert (target.bincount() == 50).all()


def test_a_head_that_forgets_the_order_stays_at_chance():
    embedded = torch.randn(20, 3, 4, generator=generator())
    shown, target = arrange(embedded, generator(1))
    forgetful = shown.sum(1) @ torch.randn(4, 3, generator=generator(2))
    assert torch.nn.functional.cross_entropy(forgetful, target) >= math.log(3) - 1e-5


def test_crops_too_thin_for_three_slabs_are_refused():
    with pytest.raises(BadInput, match="crop has 8 voxels along k, three slabs need 12"):
        objective().check_crop(torch.zeros(1, 1, 16, 16, 8))

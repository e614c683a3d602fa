"""Corruptions keep the range, report the voxels they touch, and swaps can be undone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.transforms import corruption

SHAPES = st.tuples(*[st.integers(6, 14)] * 3)
SEEDS = st.integers(0, 10**6)
CORRUPTIONS = {
    "voxels": lambda x, g: corruption.drop_voxels(x, 0.4, g),
    "cells": lambda x, g: corruption.drop_cells(x, 4, 0.5, g),
    "boxes": lambda x, g: corruption.fill_boxes(x, 3, False, g),
    "outside": lambda x, g: corruption.fill_boxes(x, 3, True, g),
    "shuffle": lambda x, g: corruption.shuffle_blocks(x, 3, 0.6, g),
    "swap": lambda x, g: corruption.swap_blocks(
        x, 3, corruption.draw_swaps(corruption.count_blocks(x.shape[1:], 3), 4, g)
    ),
}


def draw_swaps(shape, num_swaps, generator):
    return corruption.draw_swaps(corruption.count_blocks(shape, 3), num_swaps, generator)


def make_crop(shape, seed, channels=2):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(channels, *shape, generator=g), g


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_the_range_is_kept_and_untouched_voxels_are_unchanged(name, shape, seed):
    x, g = make_crop(shape, seed)
    before = x.clone()
    out, touched = CORRUPTIONS[name](x, g)
    assert torch.equal(x, before), "the input was written to"
    assert out.shape == x.shape and out.min() >= 0 and out.max() <= 1
    assert torch.equal(out[:, ~touched], x[:, ~touched])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_touched_voxels_change_and_a_seed_repeats_the_corruption(name):
    x, g = make_crop((18, 18, 18), 3)
    out, touched = CORRUPTIONS[name](x, g)
    assert touched.any() and (out != x).any(0)[touched].float().mean() > 0.9
    again, _ = CORRUPTIONS[name](*make_crop((18, 18, 18), 3))
    assert torch.equal(out, again)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 0.7), SEEDS)
def test_voxels_are_dropped_with_the_given_probability(fraction, seed):
    x, g = make_crop((20, 20, 20), seed)
    _, touched = corruption.drop_voxels(x, fraction, g)
    assert touched.float().mean().item() == pytest.approx(fraction, abs=5 * (fraction * (1 - fraction) / 8000) ** 0.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), SEEDS)
def test_exactly_the_given_fraction_of_cells_is_dropped_and_of_blocks_shuffled(fraction, seed):
    x, g = make_crop((12, 12, 8), seed)
    _, dropped = corruption.drop_cells(x, 4, fraction, g)
    _, shuffled = corruption.shuffle_blocks(x, 4, fraction, g)
    assert dropped.sum() == shuffled.sum() == round(fraction * 18) * 64


@settings(max_examples=25, deadline=None)
@given(SHAPES, SEEDS)
def test_boxes_have_a_sixth_to_a_third_of_the_side(shape, seed):
    x, g = make_crop(shape, seed)
    _, touched = corruption.fill_boxes(x, 1, False, g)
    indices = touched.nonzero()
    widths = (indices.amax(0) - indices.amin(0) + 1).tolist()
    assert touched.sum() == widths[0] * widths[1] * widths[2]
    assert all(n / 6 <= w <= n / 3 for w, n in zip(widths, shape, strict=True))


@settings(max_examples=25, deadline=None)
@given(SHAPES, SEEDS)
def test_swaps_in_reverse_order_undo_themselves(shape, seed):
    x, g = make_crop(shape, seed)
    swaps = draw_swaps(shape, 6, g)
    out, _ = corruption.swap_blocks(x, 3, swaps)
    assert torch.equal(corruption.swap_blocks(out, 3, swaps.flip(0))[0], x)


@pytest.mark.parametrize("name", ["shuffle", "swap"])
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_moving_voxels_neither_duplicates_nor_loses_any(name, shape, seed):
    x, g = make_crop(shape, seed)
    out, _ = CORRUPTIONS[name](x, g)
    assert torch.equal(out.flatten(1).sort(1).values, x.flatten(1).sort(1).values)


def test_swaps_happen_one_after_the_other():
    """Blocks taken from the original would duplicate content."""
    x = torch.arange(27.0).reshape(1, 3, 3, 3)
    out, touched = corruption.swap_blocks(x, 1, torch.tensor([[0, 13], [13, 26]]))
    assert out.flatten()[[0, 13, 26]].tolist() == [13, 26, 0] and len(out.unique()) == 27
    assert touched.flatten().nonzero().flatten().tolist() == [0, 13, 26]


def test_a_swap_moves_whole_blocks_to_the_place_of_the_other():
    x = torch.arange(64.0).reshape(1, 4, 4, 4)
    out, _ = corruption.swap_blocks(x, 2, torch.tensor([[1, 4]]))
    assert torch.equal(out[:, :2, :2, 2:], x[:, 2:, :2, :2]) and torch.equal(out[:, 2:, :2, :2], x[:, :2, :2, 2:])


def test_a_crop_smaller_than_a_block_stays_as_it_is():
    x, g = make_crop((2, 5, 5), 0)
    for out, touched in (CORRUPTIONS["shuffle"](x, g), CORRUPTIONS["swap"](x, g)):
        assert torch.equal(out, x) and not touched.any()

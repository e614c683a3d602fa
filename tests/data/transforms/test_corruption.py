"""What each corruption keeps, touches and can undo."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.transforms import corruption as corrupt

SHAPES = st.tuples(*[st.integers(6, 14)] * 3)
SEEDS = st.integers(0, 10**6)
CORRUPTIONS = {
    "voxels": lambda x, g: corrupt.drop_voxels(x, 0.4, g),
    "cells": lambda x, g: corrupt.drop_cells(x, 4, 0.5, g),
    "boxes": lambda x, g: corrupt.fill_boxes(x, 3, False, g),
    "outside": lambda x, g: corrupt.fill_boxes(x, 3, True, g),
    "shuffle": lambda x, g: corrupt.shuffle_blocks(x, 3, 0.6, g),
    "swap": lambda x, g: corrupt.swap_blocks(x, corrupt.draw_swaps(x.shape[1:], 3, 4, g)),
}


def drawn(shape, seed, channels=2):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(channels, *shape, generator=g), g


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_the_range_is_kept_and_untouched_voxels_are_unchanged(name, shape, seed):
    x, g = drawn(shape, seed)
    before = x.clone()
    out, touched = CORRUPTIONS[name](x, g)
    assert torch.equal(x, before), "the input was written to"
    assert out.shape == x.shape and out.min() >= 0 and out.max() <= 1
    assert torch.equal(out[:, ~touched], x[:, ~touched])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_touched_voxels_do_change_and_a_seed_repeats_it(name):
    x, g = drawn((18, 18, 18), 3)
    out, touched = CORRUPTIONS[name](x, g)
    assert touched.any() and (out != x).any(0)[touched].float().mean() > 0.9
    again, _ = CORRUPTIONS[name](*drawn((18, 18, 18), 3))
    assert torch.equal(out, again)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 0.7), SEEDS)
def test_voxels_are_dropped_with_the_asked_chance(share, seed):
    x, g = drawn((20, 20, 20), seed)
    _, touched = corrupt.drop_voxels(x, share, g)
    assert touched.float().mean().item() == pytest.approx(share, abs=5 * (share * (1 - share) / 8000) ** 0.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), SEEDS)
def test_exactly_the_asked_share_of_cells_is_dropped_and_of_blocks_shuffled(share, seed):
    x, g = drawn((12, 12, 8), seed)
    _, dropped = corrupt.drop_cells(x, 4, share, g)
    _, shuffled = corrupt.shuffle_blocks(x, 4, share, g)
    assert dropped.sum() == shuffled.sum() == round(share * 18) * 64


@settings(max_examples=25, deadline=None)
@given(SHAPES, SEEDS)
def test_boxes_have_a_sixth_to_a_third_of_the_side(shape, seed):
    x, g = drawn(shape, seed)
    _, touched = corrupt.fill_boxes(x, 1, False, g)
    place = touched.nonzero()
    widths = (place.amax(0) - place.amin(0) + 1).tolist()
    assert touched.sum() == widths[0] * widths[1] * widths[2]
    assert all(n / 6 <= w <= n / 3 for w, n in zip(widths, shape, strict=True))


@settings(max_examples=25, deadline=None)
@given(SHAPES, SEEDS)
def test_swaps_in_reverse_order_undo_themselves(shape, seed):
    x, g = drawn(shape, seed)
    swaps = corrupt.draw_swaps(shape, 3, 6, g)
    out, _ = corrupt.swap_blocks(x, swaps)
    assert torch.equal(corrupt.swap_blocks(out, swaps[::-1])[0], x)


@pytest.mark.parametrize("name", ["shuffle", "swap"])
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_moving_voxels_about_duplicates_and_loses_none(name, shape, seed):
    x, g = drawn(shape, seed)
    out, _ = CORRUPTIONS[name](x, g)
    assert torch.equal(out.flatten(1).sort(1).values, x.flatten(1).sort(1).values)


def test_a_swap_from_the_original_would_be_noticed():
    x = torch.arange(27.0).reshape(1, 3, 3, 3) / 27
    swaps = [(((slice(0, 1),) * 3), ((slice(1, 2),) * 3)), (((slice(1, 2),) * 3), ((slice(2, 3),) * 3))]
    planted = x.clone()
    for a, b in swaps:
        planted[:, *a], planted[:, *b] = x[:, *b], x[:, *a]
    assert len(planted.unique()) < 27 and len(corrupt.swap_blocks(x, swaps)[0].unique()) == 27

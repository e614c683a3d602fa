"""Corrections are encoded as runs and decoded voxel for voxel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from medssl.errors import BadInput
from medssl.review.mask_runs import apply_runs, diff_masks, pack_runs, unpack_runs


@given(
    arrays(np.uint8, (5, 4, 3), elements={"min_value": 0, "max_value": 2}),
    arrays(np.uint8, (5, 4, 3), elements={"min_value": 0, "max_value": 2}),
)
def test_the_difference_turns_one_image_into_the_other(before, after):
    runs = diff_masks(before, after)
    assert np.array_equal(apply_runs(before, runs), after)
    assert runs[:, 1].sum() == (before != after).sum()
    assert np.array_equal(unpack_runs(pack_runs(runs)), runs)


@given(array_shapes(min_dims=3, max_dims=3, max_side=4))
def test_i_is_the_fastest_axis(shape):
    before = np.zeros(shape, np.uint8)
    after = before.copy()
    after[-1, 0, 0] = 1
    assert diff_masks(before, after).tolist() == [[shape[0] - 1, 1, 1]]


@pytest.mark.parametrize("run", [[-1, 1, 1], [0, 9, 1], [8, 1, 1], [2**62, 2**62, 1], [0, -1, 1]])
def test_a_stroke_outside_the_image_is_refused(run):
    with pytest.raises(BadInput, match="leaves the image"):
        apply_runs(np.zeros((2, 2, 2), np.uint8), np.array([run]))


def test_a_brush_stroke_is_small():
    before = np.zeros((128, 128, 64), np.uint8)
    after = before.copy()
    after[40:60, 40:60, 30] = 1
    assert len(pack_runs(diff_masks(before, after))) < 250

"""Annotated slices are spread over the structures, across the thickest voxel edge."""

import numpy as np
import pytest

from medssl.data.selection.label_slices import find_known_slices, find_slice_axis


@pytest.mark.parametrize(
    ("spacing", "axis"), [((1, 1, 5), 2), ((4, 1, 1), 0), ((1, 1, 1), 2), ((1, 1.2, 1.2), 2), ((0.5, 0.5, 0.4999), 2)]
)
def test_slices_lie_across_the_longest_edge(spacing, axis):
    assert find_slice_axis(spacing) == axis


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 20])
def test_as_many_slices_as_requested_are_known_within_the_structures(count):
    points = [np.array([[0, 0, 10], [3, 3, 14]]), np.array([[5, 5, 19]])]
    is_known = find_known_slices(points, 2, 30, count)
    assert is_known[:10].all() and is_known[20:].all()
    assert is_known[10:20].sum() == min(count, 10)
    if count < 10:
        gaps = np.diff(np.flatnonzero(is_known[10:20]))
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_a_volume_without_structures_is_known_as_a_whole():
    assert find_known_slices([], 2, 7, 2).all() and find_known_slices([np.zeros((0, 3), int)], 2, 7, 2).all()

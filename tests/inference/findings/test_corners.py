"""Corners of convex hulls: those that Qhull finds, in every slice and of the whole structure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from medssl.inference.findings import corners
from medssl.inference.findings.corners import find_corners, find_slice_corners
from medssl.inference.findings.runs import find_runs


def draw_structure(seed, shape, density):
    """Returns voxels that are set at random, k j i, with at least one of them."""
    mask = np.random.default_rng(seed).random(shape) < density
    mask[shape[0] // 2, shape[1] // 2, shape[2] // 2] = True
    return mask


@given(st.integers(0, 200), st.tuples(*[st.integers(1, 12)] * 3), st.sampled_from([0.03, 0.3, 0.9, 1.0]))
def test_corners_of_each_slice_are_those_of_its_hull(seed, shape, density):
    mask = draw_structure(seed, shape, density)
    found = find_slice_corners(find_runs(mask, np.array([0, 0, 0])))
    for k, plane in enumerate(mask):
        points = np.argwhere(plane)[:, ::-1]
        here = found[found[:, 2] == k, :2]
        assert len(np.unique(here, axis=0)) == len(here)
        if len(points) and np.linalg.matrix_rank(points - points[0]) == 2:
            expected = points[ConvexHull(points).vertices]
            assert set(map(tuple, here)) == set(map(tuple, expected))
        elif len(points):
            ends = [points[np.lexsort(points.T)][n] for n in (0, -1)]
            assert {tuple(end) for end in ends} <= set(map(tuple, here))


@pytest.mark.parametrize("few", [0, 200])
@given(st.integers(0, 200), st.tuples(*[st.integers(1, 12)] * 3), st.sampled_from([0.03, 0.3, 1.0]))
def test_the_farthest_points_are_among_the_corners(few, seed, shape, density):
    mask = draw_structure(seed, shape, density)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corners, "FEW_POINTS", few)
        found = find_corners(find_slice_corners(find_runs(mask, np.array([0, 0, 0]))))
    distances = pdist(np.argwhere(mask) * [2.5, 0.8, 0.7])
    assert pdist(found[:, ::-1] * [2.5, 0.8, 0.7]).max(initial=0) == distances.max(initial=0)
    assert len(found) <= mask.sum()

"""Finds the voxels at the corners of convex hulls: of each slice of a structure, and of a structure as a whole."""

import numpy as np
from jaxtyping import Int
from scipy.spatial import ConvexHull, QhullError

from medssl.inference.findings.runs import Runs

NUDGE = 1e-3  # voxels; a flat structure has a hull too
FEW_POINTS = 200  # of which the distances cost less than a hull


def find_slice_corners(runs: Runs) -> Int[np.ndarray, "n 3"]:
    """Returns the voxels (i, j, k) at the corners of the convex hull of each slice, one slice after the other.

    Args:
        runs: The runs of a structure, in the order of their lines.
    """
    is_new = np.ones(len(runs), bool)
    is_new[1:] = (np.diff(runs.slice) != 0) | (np.diff(runs.line) != 0)
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(runs))[: len(first)] - 1
    k, j = runs.slice[first].astype(np.int64), runs.line[first].astype(np.int64)
    return _find_plane_corners(k, j, runs.start[first].astype(np.int64), runs.stop[last].astype(np.int64) - 1)


def find_corners(points: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "m 3"]:
    """Returns the points at the corners of their convex hull, which may be flat; of a few points, all."""
    for axes in ((0, 2, 1), (1, 2, 0)):
        points = _drop_inner_points(points, axes)
    if len(points) <= FEW_POINTS:
        return points
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        nudges = np.concatenate([np.eye(3), -np.eye(3)]) * NUDGE
        around = (points[:, None] + nudges).reshape(-1, 3)
        return np.unique(points[ConvexHull(around).vertices // len(nudges)], axis=0)


def _drop_inner_points(points: Int[np.ndarray, "n 3"], axes: tuple[int, int, int]) -> Int[np.ndarray, "m 3"]:
    """Returns the points at the corners of the hull of each plane across the first of the axes."""
    plane, line, along = (points[:, axis] for axis in axes)
    order = np.lexsort((along, line, plane))
    plane, line, along = plane[order], line[order], along[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(plane) != 0) | (np.diff(line) != 0)
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(order))[: len(first)] - 1
    corners = _find_plane_corners(plane[first], line[first], along[first], along[last])
    return corners[:, np.argsort(axes[::-1])]


def _find_plane_corners(
    plane: Int[np.ndarray, "n"], line: Int[np.ndarray, "n"], low: Int[np.ndarray, "n"], high: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "m 3"]:
    """Returns the corners (along the line, line, plane) of the hull of each plane, one plane after the other.

    Args:
        plane: The plane of each line, ascending.
        line: The position of each line in its plane, ascending.
        low: The first point of each line.
        high: The last point of each line.
    """
    lower, upper = _find_chain(plane, line, low), _find_chain(plane, line, -high)
    upper = upper[(high[upper] > low[upper]) | ~np.isin(upper, lower)]
    chosen = np.concatenate([lower, upper])
    along = np.concatenate([low[lower], high[upper]])
    order = np.argsort(plane[chosen], kind="stable")
    return np.stack([along, line[chosen], plane[chosen]], axis=1)[order]


def _find_chain(
    plane: Int[np.ndarray, "n"], line: Int[np.ndarray, "n"], height: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "m"]:
    """Returns the positions of the points on the lower side of the hull of each plane.

    A point on or above the segment between its neighbours is no corner. All such points are dropped at once, and again
    until none is left.
    """
    chain = np.arange(len(plane))
    while len(chain) > 2:
        p, x, y = plane[chain], line[chain], height[chain]
        is_inner = np.zeros(len(chain), bool)
        rise, run = y[1:-1] - y[:-2], x[1:-1] - x[:-2]
        is_inner[1:-1] = (p[:-2] == p[2:]) & (rise * (x[2:] - x[:-2]) >= (y[2:] - y[:-2]) * run)
        if not is_inner.any():
            break
        chain = chain[~is_inner]
    return chain

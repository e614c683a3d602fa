"""Estimates a surface between voxels, which a reader's caliper touches, from voxels that are inside or outside.

The surface through the faces of voxels makes every diameter too long: a ball of 6 mm becomes 6.7 mm on a grid of 1 mm.
The mask is therefore smoothed with a Gaussian of less than a voxel, and the surface runs where it falls to a level.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

PLANE_SIGMA, SPACE_SIGMA = 0.7, 0.6  # voxels: the smallest errors on balls, ellipsoids and rods of known size
REACH = 4  # voxels around the end of a diameter that the smoothing sees


def trace_outline(mask: Bool[np.ndarray, "a b"]) -> Float[np.ndarray, "n 2"]:
    """Returns points on the outline of a mask in a plane, in voxels; the outline encloses the area of the mask."""
    smooth = ndimage.gaussian_filter(np.pad(mask, REACH).astype(np.float64), PLANE_SIGMA)
    count = int(mask.sum())
    inner, outer = -np.partition(-smooth.ravel(), [count - 1, count])[[count - 1, count]]
    level = (inner + outer) / 2
    points = []
    for axis in range(2):
        lines = np.moveaxis(smooth, axis, -1)
        rows, columns = np.nonzero((lines[:, :-1] >= level) != (lines[:, 1:] >= level))
        before, after = lines[rows, columns], lines[rows, columns + 1]
        crossing = columns + (before - level) / (before - after)
        points.append(np.stack([crossing, rows] if axis == 0 else [rows, crossing], axis=1))
    return np.concatenate(points) - REACH


def find_surface_mm(
    window: Bool[np.ndarray, "w w w"], axes_mm: Float[np.ndarray, "3 3"], direction: Float[np.ndarray, "3"]
) -> float:
    """Returns how far the surface lies beyond the centre of a voxel, in mm; negative if it lies before.

    Args:
        window: The mask within `REACH` voxels of the voxel, which is in the middle.
        axes_mm: The steps from voxel to voxel along the axes of the window in mm, as columns.
        direction: A direction of length 1.
    """
    step = np.linalg.solve(axes_mm, direction)  # voxels per mm
    positions_mm = np.linspace(-2.5, 1.5, 81) / np.abs(step).max()
    points = positions_mm[:, None] * step
    offsets = np.arange(-REACH, REACH + 1)
    i, j, k = (np.exp(-0.5 * ((offsets - points[:, [axis]]) / SPACE_SIGMA) ** 2) for axis in range(3))
    i, j, k = (weights / weights.sum(1, keepdims=True) for weights in (i, j, k))
    profile = np.einsum("na,nb,nc,abc->n", i, j, k, window.astype(np.float64), optimize=True)
    level = profile.max() / 2
    last = int(np.flatnonzero(profile >= level)[-1])
    if last == len(profile) - 1:
        return float(positions_mm[last])
    fraction = (profile[last] - level) / (profile[last] - profile[last + 1])
    return float(positions_mm[last] + fraction * (positions_mm[last + 1] - positions_mm[last]))

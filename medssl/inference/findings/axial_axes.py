"""Measures the long and the short axis of a structure in an axial plane, as RECIST asks of a reader.

Eisenhauer et al., "New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1)", 2009
(https://doi.org/10.1016/j.ejca.2008.10.026): the longest diameter in the plane of the images, and the longest one
perpendicular to it. Deviations: the plane is that of the grid which is nearest to axial; the long axis may cross a
notch of the outline; diameters within half a pixel of the longest one, which differ by noise only, are averaged.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from medssl.inference.findings.corners import find_slice_corners
from medssl.inference.findings.outline import trace_outline
from medssl.inference.findings.runs import Runs
from medssl.volume import Volume

PROFILE_SIGMA = 0.55  # pixels; smooths the widths across the long axis
TOLERANCE = 0.5  # pixels
NUM_DIRECTIONS = 90


def find_axial_axis(affine: Float[np.ndarray, "4 4"]) -> int:
    """Returns the index axis that follows head to foot most closely."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return int(np.argmax(np.abs(directions[2])))


def measure_axial_axes(runs: Runs, grid: Volume) -> tuple[float, float]:
    """Returns the long and the short axis in mm, in the axial plane where the long axis is longest.

    Args:
        runs: The voxels of one structure.
        grid: A volume on the grid of the indices.
    """
    axis = find_axial_axis(grid.affine)
    slices = runs.swap_slices(axis)
    first, second = [n for n in (0, 1, 2) if n != axis] if axis else (2, 1)
    columns = grid.affine[:3, [second, first]]
    plane_mm = _flatten_axes(columns)
    mask = _choose_slice(slices, plane_mm)
    return _measure_outline(mask, plane_mm)


def _flatten_axes(columns: Float[np.ndarray, "3 2"]) -> Float[np.ndarray, "2 2"]:
    """Returns the two axes of a plane in mm in coordinates of this plane, as columns."""
    return np.linalg.cholesky(columns.T @ columns).T


def _choose_slice(runs: Runs, plane_mm: Float[np.ndarray, "2 2"]) -> Bool[np.ndarray, "a b"]:
    """Returns the mask of the slice with the longest diameter; of slices with nearly the same, the largest area."""
    corners = find_slice_corners(runs)
    numbers, first = np.unique(corners[:, 2], return_index=True)
    tolerance_mm = TOLERANCE * float(np.sqrt(abs(np.linalg.det(plane_mm))))
    diameters = _measure_diameters(corners[:, [1, 0]] @ plane_mm.T, first, tolerance_mm)
    areas = np.add.reduceat(runs.lengths, np.searchsorted(runs.slice, numbers))
    best = numbers[np.argmax(np.where(diameters >= diameters.max() - tolerance_mm, areas, 0))]
    part = runs.select(runs.slice == best)
    low = np.array([part.start.min(), part.line.min(), best], np.int64)
    high = np.array([part.stop.max(), part.line.max() + 1, best + 1], np.int64)
    return part.draw(low, high)[0]


def _measure_diameters(
    points_mm: Float[np.ndarray, "n 2"], first: Int[np.ndarray, "s"], tolerance_mm: float
) -> Float[np.ndarray, "s"]:
    """Returns the largest distance between two points of each slice; 0 for slices that cannot be among the longest.

    Args:
        points_mm: The points of all slices, one slice after the other.
        first: The first point of each slice.
        tolerance_mm: How much shorter than the longest one a diameter of interest is at most.
    """
    extent = np.maximum.reduceat(points_mm, first) - np.minimum.reduceat(points_mm, first)
    limits = np.hypot(extent[:, 0], extent[:, 1])
    slices, diameters = np.split(points_mm, first[1:]), np.zeros(len(first))
    for n in np.argsort(-limits):
        if limits[n] < diameters.max() - tolerance_mm:
            break
        diameters[n] = pdist(slices[n]).max(initial=0.0)
    return diameters


def _measure_outline(mask: Bool[np.ndarray, "a b"], plane_mm: Float[np.ndarray, "2 2"]) -> tuple[float, float]:
    """Returns the long and the short axis of a mask in a plane in mm."""
    pixel_mm = float(np.sqrt(abs(np.linalg.det(plane_mm))))
    outline = trace_outline(mask) @ plane_mm.T
    hull = outline[ConvexHull(outline).vertices]
    angles = np.arange(NUM_DIRECTIONS) * np.pi / NUM_DIRECTIONS
    extent = np.ptp(hull @ np.stack([np.cos(angles), np.sin(angles)]), axis=0)
    long_mm = float(extent[extent >= extent.max() - TOLERANCE * pixel_mm].mean())
    distance = squareform(pdist(hull))
    a, b = np.nonzero(distance >= distance.max() - TOLERANCE * pixel_mm)
    lines = (hull[b] - hull[a]) / distance[a, b][:, None]
    angle = np.angle(((lines[:, 0] + 1j * lines[:, 1]) ** 2).sum()) / 2  # lines have no sense, so angles are doubled
    along = (np.argwhere(mask) @ plane_mm.T) @ [np.cos(angle), np.sin(angle)]
    return long_mm, min(long_mm, _measure_width(along, pixel_mm))


def _measure_width(along: Float[np.ndarray, "n"], pixel_mm: float) -> float:
    """Returns the largest width across a line in mm, from the positions of all pixels along it."""
    sigma = PROFILE_SIGMA * pixel_mm
    positions = np.arange(along.min() - pixel_mm, along.max() + pixel_mm, pixel_mm / 4)
    along = np.sort(along)
    near = np.searchsorted(along, [positions - 5 * sigma, positions + 5 * sigma])
    width = [
        np.exp(-0.5 * ((along[low:high] - p) / sigma) ** 2).sum()
        for p, low, high in zip(positions, *near.tolist(), strict=True)
    ]
    return float(max(width)) * pixel_mm**2 / (sigma * np.sqrt(2 * np.pi))

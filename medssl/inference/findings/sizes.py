"""Measures a structure from its runs: volume, centre, extents, longest diameter, axial axes and sphericity."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import SphericalVoronoi
from scipy.spatial.distance import pdist, squareform

from medssl.finding import Point
from medssl.inference.findings.axial_axes import measure_axial_axes
from medssl.inference.findings.corners import find_corners, find_slice_corners
from medssl.inference.findings.outline import REACH, find_surface_mm
from medssl.inference.findings.runs import NEXT_LINES, Runs, count_overlap, match_runs
from medssl.volume import Volume

# The 13 directions (i, j, k) to a neighbour: along i, then back, straight and forward to each of the next lines.
DIRECTIONS = np.array([(1, 0, 0), *((i, j, k) for k, j in NEXT_LINES for i in (-1, 0, 1))])
RUNS_PER_PART = 1 << 16  # that are compared with others at a time


@dataclass(frozen=True)
class Sizes:
    """The sizes of a structure.

    Args:
        centre_mm: The centre of mass in mm, RAS+.
        low_mm: The lower corner of the bounding box in mm, RAS+.
        high_mm: The upper corner of the bounding box in mm, RAS+.
        volume_ml: The volume in ml.
        diameter_mm: The longest diameter in three dimensions.
        long_axis_mm: The longest diameter in an axial plane.
        short_axis_mm: The longest diameter perpendicular to it in this plane.
        sphericity: The surface of a ball of the same volume, divided by the surface; None for a few voxels.
    """

    centre_mm: Point
    low_mm: Point
    high_mm: Point
    volume_ml: float
    diameter_mm: float
    long_axis_mm: float
    short_axis_mm: float
    sphericity: float | None

    @property
    def radius_mm(self) -> float:
        """The radius of a ball of the same volume in mm."""
        return float((self.volume_ml * 750 / np.pi) ** (1 / 3))


def measure_runs(runs: Runs, grid: Volume) -> Sizes:
    """Measures the voxels of one structure.

    Args:
        runs: The runs of the structure, in the order of their lines.
        grid: A volume on the grid of the indices.
    """
    slice_corners = find_slice_corners(runs)
    corners_mm = grid.to_mm(slice_corners.astype(float))
    half_voxel_mm = np.abs(grid.affine[:3, :3]).sum(1) / 2
    volume_ml = int(runs.lengths.sum()) * grid.voxel_ml()
    long_mm, short_mm = measure_axial_axes(runs, grid)
    diameter_mm = max(long_mm, _measure_diameter_mm(runs, slice_corners, grid))
    return Sizes(
        _to_point(grid.to_mm(_find_centre(runs)[None])[0]), _to_point(corners_mm.min(0) - half_voxel_mm),
        _to_point(corners_mm.max(0) + half_voxel_mm), volume_ml, diameter_mm, long_mm, short_mm,
        measure_sphericity(runs, grid),
    )  # fmt: skip


def _find_centre(runs: Runs) -> Float[np.ndarray, "3"]:
    """Returns the mean index (i, j, k) of all voxels."""
    lengths = runs.lengths.astype(float)
    middle = np.stack([(runs.start + (runs.stop - 1.0)) / 2, runs.line, runs.slice])
    return np.asarray((middle * lengths).sum(1) / lengths.sum())


def _measure_diameter_mm(runs: Runs, slice_corners: Int[np.ndarray, "n 3"], grid: Volume) -> float:
    """Returns the longest diameter in three dimensions in mm.

    The two voxel centres that lie farthest apart give its direction; the diameter ends at the surface beyond them.

    Args:
        runs: The runs of the structure.
        slice_corners: The corners of the convex hulls of its slices.
        grid: A volume on the grid of the indices.
    """
    corners = find_corners(slice_corners)
    distance = squareform(pdist(grid.to_mm(corners.astype(float))))
    a, b = (corners[n] for n in np.unravel_index(int(distance.argmax()), distance.shape))
    axes_mm = grid.affine[:3, :3]
    if not distance.max():  # a single voxel
        return max(grid.spacing_mm())
    direction = axes_mm @ (b - a) / distance.max()
    far, near = (_draw_window(runs, corner) for corner in (b, a))
    beyond_mm = find_surface_mm(far, axes_mm, direction) + find_surface_mm(near, axes_mm, -direction)
    return float(distance.max() + beyond_mm)


def _draw_window(runs: Runs, voxel: Int[np.ndarray, "3"]) -> np.ndarray:
    """Returns the mask around a voxel, on the axes i, j, k."""
    return runs.draw(voxel - REACH, voxel + REACH + 1).transpose(2, 1, 0)


def measure_sphericity(runs: Runs, grid: Volume) -> float | None:
    """Returns the surface of a ball of the same volume, divided by the surface of the structure; at most 1.

    The surface follows from how often lines in the 13 directions between neighbouring voxels enter and leave the
    structure (Crofton's formula): Legland et al., "Computation of Minkowski measures on 2D and 3D binary images",
    Image Analysis & Stereology 2007, https://doi.org/10.5566/ias.v26.p83-92. Below 8 voxels it is None.
    """
    num_voxels = int(runs.lengths.sum())
    if num_voxels < 8:
        return None
    crossings = 2.0 * (num_voxels - count_pairs(runs))
    lines_mm = DIRECTIONS @ grid.affine[:3, :3].T
    lengths_mm = np.linalg.norm(lines_mm, axis=1)
    voxel_mm3 = grid.voxel_ml() * 1000
    surface_mm2 = 2 * float((weigh_directions(lines_mm) * crossings * voxel_mm3 / lengths_mm).sum())
    return min(1.0, float((36 * np.pi * (num_voxels * voxel_mm3) ** 2) ** (1 / 3)) / surface_mm2)


def count_pairs(runs: Runs) -> Int[np.ndarray, "13"]:
    """Returns how many voxels have a neighbour of the structure in each of the `DIRECTIONS`."""
    counts = np.zeros(len(DIRECTIONS), np.int64)
    counts[0] = int(runs.lengths.sum()) - len(runs)
    for first in range(0, len(runs), RUNS_PER_PART):
        part = runs.select(np.arange(first, min(first + RUNS_PER_PART, len(runs))))
        end = np.searchsorted(runs.slice, part.slice[-1] + 1, "right")
        others = runs.select(np.arange(first, end))
        for n, step in enumerate(NEXT_LINES):
            a, b = match_runs(part, others, step)
            overlaps = (count_overlap(part.select(a), others.select(b), shift) for shift in (-1, 0, 1))
            counts[1 + 3 * n : 4 + 3 * n] += [int(overlap.sum()) for overlap in overlaps]
    return counts


def weigh_directions(lines: Float[np.ndarray, "13 3"]) -> Float[np.ndarray, "13"]:
    """Returns the fraction of all directions that lie nearest to each line."""
    units = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    areas = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()
    return np.asarray((areas[:13] + areas[13:]) / areas.sum())


def _to_point(mm: Float[np.ndarray, "3"]) -> Point:
    x, y, z = (float(v) for v in mm)
    return x, y, z

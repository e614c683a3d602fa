"""Derives crops, strides and kernels of a network from voxel spacing and scan size, as nnU-Net's planner does."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medssl.volume import Spacing

MIN_FEATURE_SIDE = 4  # voxels along an axis of the coarsest map
MAX_SPACING_RATIO = (
    2.0  # axes whose voxels are longer than this times the shortest side are neither pooled nor convolved
)
THICK_SLICE_RATIO = 3.0  # of spacings, and of the numbers of voxels, from which a scan is a stack of slices
MAX_WIDTH = 320

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class NetworkGeometry:
    """The shape of a network and of its crops.

    Attributes:
        patch_size: Voxels of a crop; the total stride divides it.
        strides: Stride of each level along i, j, k.
        kernels: Kernel of each level along i, j, k.
    """

    patch_size: Triple
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def total_stride(self) -> Triple:
        """Product of the strides along each axis."""
        i, j, k = np.prod(self.strides, axis=0).tolist()
        return i, j, k

    def channels(self, width: int) -> tuple[int, ...]:
        """Returns the width of each level: twice that of the finer one, at most MAX_WIDTH."""
        return tuple(min(width * 2**level, MAX_WIDTH) for level in range(len(self.strides)))


def choose_spacing(spacings: Sequence[Spacing], shapes: Sequence[Triple]) -> Spacing:
    """Returns the voxel spacing that nnU-Net would resample scans to.

    The median along each axis; along the axis across thick slices the 10th percentile, so that few scans lose
    resolution.
    """
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    is_thick = target[worst] > THICK_SLICE_RATIO * target[others].max()
    if is_thick and size[worst] * THICK_SLICE_RATIO < size[others].min():
        fine = float(np.percentile([spacing[worst] for spacing in spacings], 10))
        target[worst] = max(fine, target[others].max() + 1e-5)
    i, j, k = (float(value) for value in target)
    return i, j, k


def choose_strides(spacing_mm: Spacing, patch_size: Triple) -> NetworkGeometry:
    """Returns strides and kernels for a crop, and the crop padded to a multiple of the total stride.

    Each level halves the axes with the shortest voxels, until maps have MIN_FEATURE_SIDE voxels; a kernel grows from 1
    to 3 along an axis as soon as its voxels are less than twice as long as the shortest. Isensee et al. (2021),
    https://doi.org/10.1038/s41592-020-01008-z, supplementary note 2; the axes are those of the store here.
    """
    spacing, size, kernel = list(spacing_mm), list(patch_size), [1, 1, 1]
    strides, kernels = [[1, 1, 1]], list[list[int]]()
    while axes := _find_poolable_axes(spacing, size):
        kernel = _grow_kernel(kernel, spacing)
        kernels.append(kernel)
        strides.append([2 if axis in axes else 1 for axis in range(3)])
        for axis in axes:
            spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
    kernels.append([3, 3, 3])
    total = np.prod(strides, axis=0)
    padded = _as_triple([math.ceil(n / step) * step for n, step in zip(patch_size, total.tolist(), strict=True)])
    return NetworkGeometry(padded, tuple(map(_as_triple, strides)), tuple(map(_as_triple, kernels)))


def choose_cube(spacing_mm: Spacing, median_shape: tuple[float, float, float], voxels: float) -> NetworkGeometry:
    """Returns a crop that is a cube in mm of a number of voxels, clipped to the median scan, with its network."""
    cells = 1 / np.array(spacing_mm)
    cube = np.round(cells * (voxels / cells.prod()) ** (1 / 3))
    clipped = np.minimum(cube, np.ceil(median_shape)).clip(1).astype(int)
    return choose_strides(spacing_mm, _as_triple(clipped.tolist()))


def choose_geometry(
    spacing_mm: Spacing,
    median_shape: tuple[float, float, float],
    max_voxels: float,
    fits: Callable[[NetworkGeometry], bool],
) -> NetworkGeometry | None:
    """Returns the largest crop with its network that fits a budget, or None if not even the smallest does.

    Starts from a cube in mm, at most as large as the median scan, and shortens the axis that covers most of the scan
    until the network fits.

    Args:
        spacing_mm: Voxel spacing of the store.
        median_shape: Median number of voxels along each axis.
        max_voxels: Voxels of the largest crop, before it is clipped to the median scan.
        fits: Whether a network and its crop are within the budget.
    """
    geometry = choose_cube(spacing_mm, median_shape, max_voxels)
    while not fits(geometry):
        shorter = _shorten(geometry, spacing_mm, median_shape)
        if shorter is None:
            return None
        geometry = shorter
    return geometry


def padding_fraction(patch_size: Triple, shapes: np.ndarray) -> float:
    """Returns the mean fraction of a crop that lies outside its scan, at least.

    Args:
        patch_size: Voxels of a crop.
        shapes: Voxels of each scan, one row for each.
    """
    inside = np.minimum(shapes, patch_size).prod(1) / np.prod(patch_size)
    return float(1 - inside.mean())


def _find_poolable_axes(spacing: Sequence[float], size: Sequence[int]) -> list[int]:
    """Returns the axes that the next level halves; none ends the network."""
    axes = [axis for axis in range(3) if size[axis] >= 2 * MIN_FEATURE_SIDE]
    if axes:
        shortest = min(spacing[axis] for axis in axes)
        axes = [axis for axis in axes if spacing[axis] / shortest < MAX_SPACING_RATIO]
    is_narrow = len(axes) == 1 and size[axes[0]] < 3 * MIN_FEATURE_SIDE
    return [] if is_narrow else axes


def _grow_kernel(kernel: Sequence[int], spacing: Sequence[float]) -> list[int]:
    shortest = min(spacing)
    return [
        3 if side == 3 or mm / shortest < MAX_SPACING_RATIO else 1 for side, mm in zip(kernel, spacing, strict=True)
    ]


def _shorten(
    geometry: NetworkGeometry, spacing_mm: Spacing, median_shape: tuple[float, float, float]
) -> NetworkGeometry | None:
    """Returns the next smaller crop with its network, or None if its axes cannot be shortened further."""
    coverage = np.array(geometry.patch_size) / np.array(median_shape)
    for axis in np.argsort(-coverage).tolist():
        patch = list(geometry.patch_size)
        patch[axis] -= geometry.total_stride[axis]
        if patch[axis] < 1:
            continue
        step = choose_strides(spacing_mm, _as_triple(patch)).total_stride[axis]
        patch[axis] = geometry.patch_size[axis] - step
        shorter = choose_strides(spacing_mm, _as_triple(patch))
        if np.prod(shorter.patch_size) < np.prod(geometry.patch_size) and patch[axis] >= MIN_FEATURE_SIDE:
            return shorter
    return None


def _as_triple(values: Sequence[int]) -> Triple:
    i, j, k = (int(value) for value in values)
    return i, j, k

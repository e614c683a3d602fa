"""Grids laid over the extent of scans, and what is interpolated and averaged on them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Shaped
from scipy import ndimage

GridShape = tuple[int, int, int]
ImageArray = Float32[np.ndarray, "i j k"]
VoxelCoordinates = Float32[np.ndarray, "3 i j k"]
SMOOTHING_SIGMA = 0.6  # voxels over which the atlas is smoothed, which fills voxels that no scan reaches


def splat(x: Shaped[np.ndarray, "n i j k"], coordinates: VoxelCoordinates) -> Float64[np.ndarray, "n i j k"]:
    """Adds the value of every voxel to the atlas voxel nearest to its coordinates, for each channel."""
    grid = x.shape[1:]
    nearest = np.rint(coordinates).astype(int)
    inside = np.logical_and.reduce([(axis >= 0) & (axis < n) for axis, n in zip(nearest, grid, strict=True)])
    flat = np.ravel_multi_index(tuple(axis[inside] for axis in nearest), grid)
    return np.stack([np.bincount(flat, channel[inside], inside.size).reshape(grid) for channel in x])


def smoothed_mean(
    total: Float64[np.ndarray, "i j k"], count: Float64[np.ndarray, "i j k"]
) -> Float64[np.ndarray, "i j k"]:
    """Divides smoothed sums by smoothed counts, so that voxels with few values take the mean of their neighbours."""
    return ndimage.gaussian_filter(total, SMOOTHING_SIGMA) / (ndimage.gaussian_filter(count, SMOOTHING_SIGMA) + 1e-3)


def grid_coordinates(shape: Sequence[int], over: Sequence[int]) -> VoxelCoordinates:
    """Computes where the voxels of a grid of one shape lie, as voxel indices of a grid `over` the same extent."""
    scale = np.array(over) / np.array(shape)
    index = np.moveaxis(np.indices(tuple(shape), np.float32), 0, -1)
    return np.moveaxis((index + 0.5) * scale - 0.5, -1, 0).astype(np.float32)


def resample_deformation(deformation: VoxelCoordinates, shape: Sequence[int]) -> Float32[np.ndarray, "3 p q r"]:
    """Resamples the deformation of a case to the shape of its own grid."""
    coordinates = grid_coordinates(shape, deformation.shape[1:])
    return np.stack([interpolate(axis, coordinates) for axis in deformation])


def interpolate(x: ImageArray, coordinates: Float32[np.ndarray, "3 p q r"]) -> Float32[np.ndarray, "p q r"]:
    """Interpolates an image linearly at voxel coordinates, with its border value beyond the border."""
    return ndimage.map_coordinates(x, coordinates, order=1, mode="nearest")


def resize_displacement(displacement: VoxelCoordinates, shape: Sequence[int]) -> Float32[np.ndarray, "3 p q r"]:
    """Resamples a displacement to another grid over the same extent, in voxels of that grid."""
    grid = displacement.shape[1:]
    coordinates = grid_coordinates(shape, grid)
    axes = zip(displacement, shape, grid, strict=True)
    return np.stack([interpolate(axis, coordinates) * np.float32(new / old) for axis, new, old in axes])

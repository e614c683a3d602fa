"""Measures how deep voxels lie inside a mask, in mm."""

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from scipy import ndimage

from medssl.volume import Spacing

Grid = Float32[np.ndarray, "i j k"]
FAR_MM = 16.0  # depths are not measured beyond this distance outside


def measure_depth(mask: Bool[np.ndarray, "i j k"], spacing_mm: Spacing) -> Grid:
    """Returns how far each voxel of a mask is from the voxels outside, in mm; the edge of the grid does not count."""
    return ndimage.distance_transform_edt(mask, spacing_mm).astype(np.float32)


def measure_signed_depth(mask: Bool[np.ndarray, "..."], spacing_mm: tuple[float, ...]) -> Float32[np.ndarray, "..."]:
    """Returns the depth in mm, negative outside of the mask and 0 at its surface, of a slice or a volume."""
    if not mask.any():
        return np.full(mask.shape, -FAR_MM, np.float32)
    inside, outside = (ndimage.distance_transform_edt(part, spacing_mm) for part in (mask, ~mask))
    half = min(spacing_mm) / 2
    return np.where(mask, inside - half, np.maximum(half - outside, -FAR_MM)).astype(np.float32)


def find_deepest_point(depth_mm: Shaped[np.ndarray, "i j k"]) -> Float32[np.ndarray, "3"]:
    """Returns the voxel of a mask that is furthest from its surface, where readers click first."""
    return np.array(np.unravel_index(int(depth_mm.argmax()), depth_mm.shape), np.float32)

"""Resamples slices onto a regular grid: fills gaps and corrects a gantry tilt."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Real

from medssl.volume import Volume


def interpolate_missing_slices(
    voxels: Real[np.ndarray, "i j n"], positions: Float[np.ndarray, "k"]
) -> Real[np.ndarray, "i j k"]:
    """Interpolates slices linearly at fractional slice positions."""
    low = np.minimum(np.floor(positions).astype(int), voxels.shape[2] - 2)
    weight = (positions - low).astype(np.float32)
    interpolated = voxels[:, :, low] * (1 - weight) + voxels[:, :, low + 1] * weight
    return (np.rint(interpolated) if np.issubdtype(voxels.dtype, np.integer) else interpolated).astype(voxels.dtype)


def correct_gantry_tilt(volume: Volume, fill: float) -> Volume:
    """Resamples a volume with a sheared affine onto a grid with the normal of the slices as third axis.

    The axes i and j keep their directions; `fill` is the value outside the volume.
    """
    return volume.resample_to(make_straight_grid(volume), order=1, fill=fill)


def make_straight_grid(volume: Volume) -> Volume:
    """Returns an empty volume around a volume with a sheared affine, with the normal of the slices as third axis."""
    across, down, step = volume.affine[:3, :3].T
    normal = np.cross(across, down)
    normal *= (step @ normal) / (normal @ normal)
    shift = np.linalg.lstsq(np.stack([across, down], 1), step - normal, rcond=None)[0] * (volume.shape[2] - 1)
    first = np.floor(np.minimum(0, shift) + 1e-6)
    last = np.ceil(np.maximum(0, shift) - 1e-6)
    affine = volume.affine.copy()
    affine[:3, 2] = normal
    affine[:3, 3] += first[0] * across + first[1] * down
    shape = (volume.shape[0] + int(last[0] - first[0]), volume.shape[1] + int(last[1] - first[1]), volume.shape[2])
    empty = np.broadcast_to(np.zeros((), volume.voxels.dtype), shape)
    return replace(volume, voxels=empty, affine=affine)

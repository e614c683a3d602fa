"""Slices brought onto a straight and even grid: gaps filled, a gantry's tilt undone."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Real

from medssl.volume import Volume


def filled(voxels: Real[np.ndarray, "i j n"], between: Float[np.ndarray, "k"]) -> Real[np.ndarray, "i j k"]:
    """Slices at fractional places `between` those given, linearly interpolated."""
    low = np.minimum(np.floor(between).astype(int), voxels.shape[2] - 2)
    share = (between - low).astype(np.float32)
    mixed = voxels[:, :, low] * (1 - share) + voxels[:, :, low + 1] * share
    return (np.rint(mixed) if np.issubdtype(voxels.dtype, np.integer) else mixed).astype(voxels.dtype)


def straightened(volume: Volume, fill: float) -> Volume:
    """A volume with a sheared affine sampled on a grid whose third axis is the slices' normal; i and j stay."""
    across, down, step = volume.affine[:3, :3].T
    normal = np.cross(across, down)
    normal *= (step @ normal) / (normal @ normal)
    slide = np.linalg.lstsq(np.stack([across, down], 1), step - normal, rcond=None)[0] * (volume.shape[2] - 1)
    first = np.floor(np.minimum(0, slide) + 1e-6)
    last = np.ceil(np.maximum(0, slide) - 1e-6)
    affine = volume.affine.copy()
    affine[:3, 2] = normal
    affine[:3, 3] += first[0] * across + first[1] * down
    shape = (volume.shape[0] + int(last[0] - first[0]), volume.shape[1] + int(last[1] - first[1]), volume.shape[2])
    empty = np.broadcast_to(np.zeros((), volume.voxels.dtype), shape)
    return volume.resample_to(replace(volume, voxels=empty, affine=affine), order=1, fill=fill)

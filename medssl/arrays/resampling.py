"""Resamples voxel arrays: along the axes where two grids are parallel, else by interpolation in three dimensions."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage, sparse

from medssl.arrays.disk_arrays import allocate_like, find_slowest_axis, release_pages

TILE = 16  # voxels per side
SLAB_VOXELS = 1 << 24  # that are resampled at a time
Sampler = Any  # of an axis: the index of the nearest voxel for each new one, or the weights (m, n) of the voxels


def sample_axes(
    voxels: Shaped[np.ndarray, "*c i j k"],
    change: Float[np.ndarray, "4 4"],
    axes: Shaped[np.ndarray, "3 3"],
    shape: tuple[int, int, int],
    order: int,
    fill: float | None,
    is_filtered: bool = True,
) -> Shaped[np.ndarray, "*c p q r"]:
    """Samples one axis after the other: each new index lies at scale * index + offset of one old axis.

    The result is computed in slabs, so that little memory is needed beyond it.
    """
    num_lead = voxels.ndim - 3
    old_axes = [int(np.flatnonzero(axes[:, new])[0]) for new in range(3)]
    voxels = voxels.transpose(*range(num_lead), *(num_lead + old for old in old_axes))
    positions = [change[old, new] * np.arange(shape[new]) + change[old, 3] for new, old in enumerate(old_axes)]
    scales = [abs(float(change[old, new])) for new, old in enumerate(old_axes)]
    widths = scales if is_filtered else [1.0] * 3
    samplers = [_make_sampler(*axis, order) for axis in zip(voxels.shape[num_lead:], positions, widths, strict=True)]
    out = allocate_like(voxels, (*voxels.shape[:num_lead], *shape), voxels.dtype)
    slow = find_slowest_axis(voxels)
    plane_voxels = math.prod(map(max, out.shape, voxels.shape)) // max(out.shape[slow], voxels.shape[slow])
    num_slices = max(1, int(SLAB_VOXELS / (plane_voxels * max(1.0, scales[slow]))))
    before, behind = (slice(None),) * (voxels.ndim + slow), (slice(None),) * (-1 - slow)
    for first in range(0, shape[slow], num_slices):
        new_slices = slice(first, first + num_slices)
        old_slices, cut = _cut_sampler(samplers[slow], new_slices)
        slab = to_contiguous(voxels[(*before, old_slices, *behind)])
        for axis in (-3, -2, -1):
            slab = _sample_along_axis(slab, axis, cut if axis == slow else samplers[axis])
        out[(*before, new_slices, *behind)] = _round_to_dtype(slab, voxels.dtype)
        release_pages(voxels, out)
    if fill is not None:
        for new, n in enumerate(voxels.shape[num_lead:]):
            is_outside = (positions[new] <= -0.5 - 1e-6) | (positions[new] >= n - 0.5 + 1e-6)
            np.moveaxis(out, num_lead + new, 0)[is_outside] = fill
    return out


def to_contiguous(voxels: Shaped[np.ndarray, "*c i j k"]) -> Shaped[np.ndarray, "*c i j k"]:
    """Copies to C order tile by tile, since transposing the whole array misses the cache at every voxel."""
    if voxels.flags.c_contiguous:
        return voxels
    out = np.empty(voxels.shape, voxels.dtype)
    for i, j, k in np.ndindex(*(-(-n // TILE) for n in voxels.shape[-3:])):
        a, b, c = i * TILE, j * TILE, k * TILE
        tile = (..., slice(a, a + TILE), slice(b, b + TILE), slice(c, c + TILE))
        out[tile] = voxels[tile]
    return out


def _make_sampler(n: int, positions: Float[np.ndarray, "m"], scale: float, order: int) -> Sampler:
    """Returns what samples an axis of n voxels; the triangle kernel is widened to `scale` voxels against aliasing."""
    if order == 0 or np.array_equal(positions, np.arange(n)):
        return np.clip(np.floor(positions + 0.5), 0, n - 1).astype(int)
    return _triangle_weights(np.clip(positions, 0, n - 1), n, max(1.0, scale))


def _cut_sampler(sampler: Sampler, new: slice) -> tuple[slice, Sampler]:
    """Returns the old voxels that some of the new ones are sampled from, and what samples these."""
    if isinstance(sampler, np.ndarray):
        indices = sampler[new]
        return slice(int(indices.min()), int(indices.max()) + 1), indices - indices.min()
    weights = sampler[new]
    low, high = int(weights.indices.min()), int(weights.indices.max()) + 1
    return slice(low, high), weights[:, low:high]


def _sample_along_axis(voxels: Shaped[np.ndarray, "*n"], axis: int, sampler: Sampler) -> Shaped[np.ndarray, "*m"]:
    """Samples one axis with indices (nearest) or with weights (linear)."""
    if isinstance(sampler, np.ndarray):
        is_whole = np.array_equal(sampler, np.arange(voxels.shape[axis]))
        return voxels if is_whole else voxels.take(sampler, axis=axis)
    out = np.empty([sampler.shape[0] if n == axis % voxels.ndim else s for n, s in enumerate(voxels.shape)], np.float32)
    planes, sampled_planes = np.moveaxis(voxels, axis, -2), np.moveaxis(out, axis, -2)
    for index in np.ndindex(*planes.shape[:-2]):  # a plane fits into the cache, which makes its transposition cheap
        sampled_planes[index] = sampler @ np.ascontiguousarray(planes[index], np.float32)
    return out


def weigh_neighbours(positions: Float[np.ndarray, "m"], n: int, is_filtered: bool = True) -> sparse.csr_array:
    """Returns the weights (m, n) of linear interpolation at equidistant positions, which repeats the edge outside.

    Args:
        positions: The positions in voxels.
        n: The number of voxels.
        is_filtered: Whether the kernel is wider where the positions lie more than a voxel apart, against aliasing.
    """
    scale = abs(positions[1] - positions[0]) if len(positions) > 1 and is_filtered else 1.0
    return _triangle_weights(np.clip(positions, 0, n - 1), n, max(1.0, float(scale)))


def _triangle_weights(positions: Float[np.ndarray, "m"], n: int, width: float) -> sparse.csr_array:
    """Returns the weights (m, n) of a triangle kernel with the given half width in voxels."""
    radius = int(np.ceil(width))
    neighbours = np.floor(positions)[:, None] + np.arange(-radius + 1, radius + 1)
    distance = neighbours - positions[:, None]
    weight = np.maximum(0, 1 - np.abs(distance) / width)
    # A widened triangle, sampled, is off centre by up to a hundredth of a voxel: its first moment is set to 0.
    weight *= 1 - distance * (weight * distance).sum(1, keepdims=True) / np.maximum(
        1e-12, (weight * distance**2).sum(1, keepdims=True)
    )
    weight *= (neighbours >= 0) & (neighbours < n)
    weight /= weight.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(positions)), neighbours.shape[1])
    columns = np.clip(neighbours, 0, n - 1).astype(int).ravel()
    return sparse.csr_array((weight.ravel().astype(np.float32), (rows, columns)), shape=(len(positions), n))


def _round_to_dtype(x: Shaped[np.ndarray, "*n"], dtype: np.dtype) -> Shaped[np.ndarray, "*n"]:
    """Casts to a type, rounding where numbers with a fraction become integers."""
    needs_rounding = np.issubdtype(dtype, np.integer) and not np.issubdtype(x.dtype, np.integer)
    return (np.rint(x) if needs_rounding else x).astype(dtype, copy=False)


def sample_oblique(
    voxels: Shaped[np.ndarray, "*c i j k"],
    change: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    order: int,
    fill: float | None,
) -> Shaped[np.ndarray, "*c p q r"]:
    """Samples onto a grid that is oblique to the voxels, channel by channel."""
    channels = voxels.reshape(-1, *voxels.shape[-3:])
    mode, value = ("nearest", 0.0) if fill is None else ("grid-constant", fill)
    sampled = [
        ndimage.affine_transform(
            c if order == 0 else c.astype(np.float32),
            change[:3, :3], change[:3, 3], output_shape=shape, order=order, mode=mode, cval=value,
        )
        for c in channels
    ]  # fmt: skip
    return _round_to_dtype(np.stack(sampled).reshape(*voxels.shape[:-3], *shape), voxels.dtype)

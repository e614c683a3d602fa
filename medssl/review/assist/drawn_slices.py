"""Slices in which a reader drew a finding: the mask is known there, and its outline continues to the slices between."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from medssl.review.assist.depth import FAR_MM, measure_signed_depth
from medssl.volume import Spacing

Mask = Bool[np.ndarray, "i j k"]
Grid = Float32[np.ndarray, "i j k"]
Indices = tuple[int, ...]
REACH_MM = 8.0  # how far a correction in one slice counts beyond the last slice that was drawn


@dataclass(frozen=True)
class DrawnSlices:
    """The slices of a grid in which the mask is as the reader wants it.

    Args:
        along_i: Their indices along the first axis, in ascending order.
        along_j: Their indices along the second axis.
        along_k: Their indices along the third axis.
    """

    along_i: Indices = ()
    along_j: Indices = ()
    along_k: Indices = ()

    @property
    def by_axis(self) -> tuple[Indices, Indices, Indices]:
        """The indices along each axis."""
        return self.along_i, self.along_j, self.along_k

    @property
    def count(self) -> int:
        """The number of slices."""
        return sum(map(len, self.by_axis))

    def crop(self, box: tuple[slice, slice, slice]) -> "DrawnSlices":
        """Returns the slices inside a box, by their indices in it."""
        i, j, k = (
            tuple(n - side.start for n in indices if side.start <= n < side.stop)
            for indices, side in zip(self.by_axis, box, strict=True)
        )
        return DrawnSlices(i, j, k)

    def mark(self, shape: tuple[int, int, int]) -> Mask:
        """Returns the voxels of all slices on a grid of this shape."""
        marked = np.zeros(shape, bool)
        for axis, indices in enumerate(self.by_axis):
            np.moveaxis(marked, axis, 0)[list(indices)] = True
        return marked

    def cut_outlines(self, mask: Mask) -> list[Mask]:
        """Returns the part of a mask in each slice, as a mask of the same shape."""
        outlines = []
        for axis, indices in enumerate(self.by_axis):
            for index in indices:
                outline = np.zeros_like(mask)
                np.moveaxis(outline, axis, 0)[index] = np.moveaxis(mask, axis, 0)[index]
                outlines.append(outline)
        return outlines

    def measure_distance(self, shape: tuple[int, int, int], spacing_mm: Spacing) -> Grid:
        """Returns the distance of each voxel to the nearest slice in mm."""
        distance = np.full(shape, np.inf, np.float32)
        for axis, indices in enumerate(self.by_axis):
            for index in indices:
                gaps = np.abs(np.arange(shape[axis]) - index) * spacing_mm[axis]
                distance = np.minimum(distance, np.expand_dims(gaps, [a for a in range(3) if a != axis]))
        return distance.astype(np.float32)

    def extend(self, mask: Mask, spacing_mm: Spacing, expected: Grid | None = None) -> Grid:
        """Returns the signed depth in mm that the outlines in the slices give to all voxels.

        Between two slices the depth is interpolated. Beyond the last one a finding ends like a ball, or follows the
        shape that is expected there.

        Args:
            mask: The mask of the finding, as the reader wants it in the slices.
            spacing_mm: The distance between neighbouring voxels along i, j, k in mm.
            expected: The signed depth of the shape that signed cases predict.
        """
        total, weights = np.zeros(mask.shape, np.float32), np.float32(0)
        for axis, indices in enumerate(self.by_axis):
            if indices:
                others = tuple(spacing_mm[a] for a in range(3) if a != axis)
                base = None if expected is None else np.moveaxis(expected, axis, 0)
                depth = _extend_along(np.moveaxis(mask, axis, 0), indices, spacing_mm[axis], others, base)
                total += len(indices) * np.moveaxis(depth, 0, axis)
                weights += np.float32(len(indices))
        return total / weights


NO_SLICES = DrawnSlices()


def _extend_along(
    mask: Mask, indices: Indices, step_mm: float, spacing_mm: tuple[float, ...], expected: Grid | None
) -> Grid:
    """Returns the signed depth from slices along the first axis, which lie `step_mm` apart."""
    depths = {n: measure_signed_depth(mask[n], spacing_mm) for n in indices}
    if expected is not None:
        depths = {n: np.clip(depth - expected[n], -FAR_MM / 2, FAR_MM / 2) for n, depth in depths.items()}
    extended = []
    for n in range(len(mask)):
        before, after = [m for m in indices if m <= n], [m for m in indices if m >= n]
        if before and after:
            share = (n - before[-1]) / max(after[0] - before[-1], 1)
            extended.append((1 - share) * depths[before[-1]] + share * depths[after[0]])
        else:
            nearest = before[-1] if before else after[0]
            distance = abs(n - nearest) * step_mm
            extended.append(_end(depths[nearest], distance, is_difference=expected is not None))
    result = np.stack(extended).astype(np.float32)
    return result if expected is None else result + expected


def _end(depth: Float[np.ndarray, "i j"], distance_mm: float, is_difference: bool) -> Float[np.ndarray, "i j"]:
    """Returns the depth at a distance beyond the last slice: a difference fades, an outline closes like a ball."""
    if is_difference:
        return depth * np.exp(-0.5 * (distance_mm / REACH_MM) ** 2)
    radius = max(float(depth.max()), 0.0)
    return depth - radius + (np.sqrt(radius**2 - distance_mm**2) if distance_mm < radius else radius - distance_mm)

"""Shapes of signed findings, placed where they agree best with what a reader has drawn or clicked."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from medssl.review.assist.depth import FAR_MM, find_deepest_point, measure_depth, measure_signed_depth
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.volume import Spacing

Mask = Bool[np.ndarray, "i j k"]
Grid = Float32[np.ndarray, "i j k"]
Point = Float[np.ndarray, "3"]
SIDE = 41  # points of the grid of a shape along each axis
STEP_MM = 2.0  # the finest step of the grid; a larger finding has a coarser one
FIT_SHARPNESS = 8.0  # how quickly a shape that fits worse than another loses its say
MOVES_MM = (4.0, 2.0, 1.0)  # steps of the search for the place of a shape


@dataclass(frozen=True, eq=False)
class SignedShape:
    """The signed depth of a finding on a grid around the middle of its box.

    Args:
        depth_mm: The signed depth in mm.
        step_mm: The distance between the points of the grid.
        deepest_mm: The deepest point of the finding, relative to the middle of the grid.
    """

    depth_mm: Float32[np.ndarray, "n n n"]
    step_mm: float
    deepest_mm: Float32[np.ndarray, "3"]

    @classmethod
    def from_mask(cls, mask: Mask, spacing_mm: Spacing) -> "SignedShape":
        """Returns the shape of a mask, which must hold a voxel."""
        spacing = np.array(spacing_mm)
        box = ndimage.find_objects(mask.view(np.uint8))[0]
        near = np.pad(mask[box], [(int(np.ceil(FAR_MM / mm)),) * 2 for mm in spacing_mm])
        step = max(STEP_MM, float((np.array(near.shape) * spacing).max()) / (SIDE - 1))
        middle = (np.array(near.shape) - 1) / 2
        axes = [(np.arange(SIDE) - SIDE // 2) * step / mm + c for mm, c in zip(spacing_mm, middle, strict=True)]
        depth = ndimage.map_coordinates(
            measure_signed_depth(near, spacing_mm), np.stack(np.meshgrid(*axes, indexing="ij")), order=1, cval=-FAR_MM
        )
        deepest = (find_deepest_point(measure_depth(near, spacing_mm)) - middle) * spacing
        return cls(depth.astype(np.float32), step, deepest.astype(np.float32))

    def sample(self, shape: tuple[int, int, int], spacing_mm: Spacing, middle_mm: Point) -> Grid:
        """Returns the signed depth on a grid of voxels with the middle of the shape at `middle_mm` from its corner."""
        axes = [
            (np.arange(n) * mm - c) / self.step_mm + SIDE // 2
            for n, mm, c in zip(shape, spacing_mm, middle_mm, strict=True)
        ]
        points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
        return ndimage.map_coordinates(self.depth_mm, points, order=1, cval=-FAR_MM)

    def fit(self, mask: Mask, drawn: DrawnSlices, spacing_mm: Spacing) -> tuple[float, Point]:
        """Returns 1 - Dice in the drawn slices, and the place of the middle at which it is smallest.

        The largest outline is matched with every slice of the shape in turn; the best match is then moved.
        """
        slices = [(axis, n) for axis, indices in enumerate(drawn.by_axis) for n in indices]
        axis, index = max(slices, key=lambda place: np.take(mask, place[1], place[0]).sum())
        others = [a for a in range(3) if a != axis]
        drawn_centre = np.array(ndimage.center_of_mass(np.take(mask, index, axis))) * np.array(spacing_mm)[others]
        best, best_cost = np.zeros(3), np.inf
        for n in range(SIDE):
            section = np.take(self.depth_mm, n, axis) > 0
            if section.any():
                middle = np.zeros(3)
                middle[axis] = index * spacing_mm[axis] - (n - SIDE // 2) * self.step_mm
                centre = np.array(ndimage.center_of_mass(section)) - SIDE // 2
                middle[others] = drawn_centre - centre * self.step_mm
                cost = self._measure_misfit(mask, slices, spacing_mm, middle)
                if cost < best_cost:
                    best, best_cost = middle, cost
        for step in MOVES_MM:
            is_moving = True
            while is_moving:
                moves = [best + step * sign * unit for unit in np.eye(3) for sign in (1, -1)]
                costs = [self._measure_misfit(mask, slices, spacing_mm, middle) for middle in moves]
                is_moving = min(costs) < best_cost - 1e-6
                if is_moving:
                    best, best_cost = moves[int(np.argmin(costs))], min(costs)
        return best_cost, best

    def _measure_misfit(
        self, mask: Mask, slices: list[tuple[int, int]], spacing_mm: Spacing, middle_mm: Point
    ) -> float:
        """Returns 1 - Dice of the shape at a place and the mask, over the slices."""
        common = total = 0
        for axis, index in slices:
            shape, middle = list(mask.shape), middle_mm.copy()
            shape[axis], middle[axis] = 1, middle_mm[axis] - index * spacing_mm[axis]
            section = self.sample((shape[0], shape[1], shape[2]), spacing_mm, middle) > 0
            outline = np.take(mask, [index], axis)
            common += 2 * int((section & outline).sum())
            total += int(section.sum() + outline.sum())
        return 1 - common / max(total, 1)


def place_by_slices(shapes: Iterable[SignedShape], mask: Mask, drawn: DrawnSlices, spacing_mm: Spacing) -> Grid | None:
    """Returns the mean signed depth of the shapes, each where it fits the drawn slices; None without an outline."""
    if not (mask & drawn.mark(mask.shape)).any():
        return None
    fits = [(shape, *shape.fit(mask, drawn, spacing_mm)) for shape in shapes]
    if not fits:
        return None
    costs = np.array([cost for _, cost, _ in fits])
    weights = np.exp(-(costs - costs.min()) * FIT_SHARPNESS * drawn.count)
    placed = [
        w * shape.sample(mask.shape, spacing_mm, middle) for w, (shape, _, middle) in zip(weights, fits, strict=True)
    ]
    return (sum(placed) / weights.sum()).astype(np.float32)


def place_by_point(
    shapes: Iterable[SignedShape], shape: tuple[int, int, int], point: Point, spacing_mm: Spacing
) -> Grid:
    """Returns the share of the shapes that hold each voxel, each with its deepest point at a voxel `point`."""
    place = point * np.array(spacing_mm)
    depths = [s.sample(shape, spacing_mm, place - s.deepest_mm) / s.step_mm for s in shapes]
    return np.mean([np.clip(depth + 0.5, 0, 1) for depth in depths], 0).astype(np.float32)

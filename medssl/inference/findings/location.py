"""Describes where a lesion lies: its distance to the nearest labelled organ, and the side of a paired one."""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float

from medssl.finding import Point
from medssl.inference.findings.collect import Structures
from medssl.inference.findings.runs import Runs
from medssl.volume import Volume

MAX_DISTANCE_MM = 30.0  # an organ farther away says nothing about a lesion
MIN_SIDE_FRACTION = 0.25  # the smaller half of a paired organ
MIDDLE_FRACTION = 0.1  # of the width of an organ: nearer to its middle, the side is not named


def describe_location(
    centre_mm: Point,
    radius_mm: float,
    structures: Structures,
    grid: Volume,
    names: Mapping[int, str],
    organs: Collection[int],
) -> str:
    """Returns for example "at lungs, left" or "8 mm from liver"; empty without a labelled organ nearby.

    Args:
        centre_mm: The centre of the lesion in mm, RAS+.
        radius_mm: The radius of a ball of its volume in mm.
        structures: The structures of the case, among them its organs.
        grid: A volume on their grid.
        names: The class names by label value.
        organs: The label values of organs.
    """
    centre = grid.to_index(np.array([centre_mm]))[0]
    nearest: tuple[float, int, Runs] | None = None
    for number in np.flatnonzero(np.isin(structures.label, list(organs))):
        runs = structures.runs.select(int(number))
        distance_mm = _measure_distance_mm(centre, runs, grid)
        if nearest is None or distance_mm < nearest[0]:
            nearest = distance_mm, int(structures.label[number]), runs
    if nearest is None or nearest[0] - radius_mm > MAX_DISTANCE_MM:
        return ""
    distance_mm, label, runs = max(0.0, nearest[0] - radius_mm), *nearest[1:]
    place = (
        f"at {names[label]}" if distance_mm < max(grid.spacing_mm()) else f"{distance_mm:.0f} mm from {names[label]}"
    )
    side = _find_side(centre_mm[0], runs, grid)
    return f"{place}, {side}" if side else place


def _measure_distance_mm(centre: Float[np.ndarray, "3"], runs: Runs, grid: Volume) -> float:
    """Returns the distance from a point, given by its index, to the nearest voxel centre in mm."""
    i = np.clip(centre[0], runs.start, runs.stop - 1)
    steps = np.stack([i, runs.line, runs.slice], axis=1) - centre
    return float(np.sqrt(((steps @ grid.affine[:3, :3].T) ** 2).sum(1).min()))


def _find_side(x_mm: float, runs: Runs, grid: Volume) -> str:
    """Returns the side of an organ that has a left and a right half, with a gap between them; empty for others."""
    middle = np.stack([(runs.start + runs.stop - 1) / 2, runs.line, runs.slice], axis=1)
    x = grid.to_mm(middle)[:, 0]
    order = np.argsort(x)
    gaps = np.diff(x[order])
    volume = np.cumsum(runs.lengths[order]) / runs.lengths.sum()
    fair = (volume[:-1] > MIN_SIDE_FRACTION) & (volume[:-1] < 1 - MIN_SIDE_FRACTION)
    if not fair.any():
        return ""
    cut = int(np.argmax(np.where(fair, gaps, -1.0)))
    width = float(x[order[-1]] - x[order[0]])
    if gaps[cut] < MIDDLE_FRACTION * width:
        return ""
    return "right" if x_mm > (x[order[cut]] + x[order[cut + 1]]) / 2 else "left"

"""Labels of a few slices: which slices of a volume are annotated, and what is known of the others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


def find_slice_axis(spacing_mm: Sequence[float]) -> int:
    """Returns the axis across the slices: that of the longest voxel edge, and k (axial slices) of equal ones."""
    return max(range(3), key=lambda axis: (round(spacing_mm[axis], 3), axis))


def find_known_slices(
    points: Sequence[Int[np.ndarray, "_ 3"]], axis: int, length: int, count: int
) -> Bool[np.ndarray, "s"]:
    """Returns which slices of a volume are known if `count` of them are annotated.

    The annotated slices are spread evenly over the extent of the structures. The slices before and behind that extent
    are known to be background, since an annotator marks where the structures begin and end.

    Args:
        points: Voxels of each structure; without any, all slices are known.
        axis: Axis across the slices.
        length: Number of slices.
        count: Number of annotated slices.
    """
    is_known = np.ones(length, bool)
    positions = np.concatenate([structure[:, axis] for structure in points]) if points else np.zeros(0, int)
    if not positions.size:
        return is_known
    first, last = int(positions.min()), int(positions.max())
    is_known[first : last + 1] = False
    places = first + (np.arange(count) + 0.5) / count * (last + 1 - first)
    is_known[places.astype(int)] = True
    return is_known

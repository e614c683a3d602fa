"""Numbers the connected regions of a large array slab by slab, with little in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Int, Int32
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from medssl.arrays.disk_arrays import allocate_like, find_slowest_axis, iterate_slabs, release_pages
from medssl.volume import NEIGHBOURS_26

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ConnectedRegion:
    """A connected region.

    Args:
        parts: The numbers that its voxels have: one for each slab, or several.
        box: The smallest box around it.
    """

    parts: tuple[int, ...]
    box: Box


def label_regions(
    array: np.ndarray, is_inside: Callable[[np.ndarray], Bool[np.ndarray, "i j k"]]
) -> tuple[Int32[np.ndarray, "i j k"], list[ConnectedRegion]]:
    """Numbers the parts of connected regions from 1, 0 outside, and returns the regions in the order of their parts.

    Args:
        array: An array of three axes, which may lie on disk; then the numbers lie there too.
        is_inside: Returns which values of a slab are inside a region.
    """
    numbers_of_all = allocate_like(array, array.shape, np.int32)
    axis = find_slowest_axis(array) + 3
    corners, joints = [np.zeros((0, 3, 2), int)], [np.zeros((0, 2), int)]
    border, start, count = None, 0, 0
    for index in iterate_slabs(array):
        numbers, num_parts = ndimage.label(is_inside(array[index]), NEIGHBOURS_26)
        boxes = [[(side.start, side.stop) for side in box] for box in ndimage.find_objects(numbers)]
        corners.append(np.array(boxes, int).reshape(-1, 3, 2))
        corners[-1][:, axis] += start
        numbers[numbers > 0] += count
        numbers_of_all[index] = numbers
        release_pages(numbers_of_all)
        rows = np.moveaxis(numbers, axis, 0)
        if border is not None:
            joints.extend(_find_joints(border, rows[0]))
        border, start, count = rows[-1].copy(), start + len(rows), count + num_parts
    first, second = np.concatenate(joints).T - 1
    links = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    num_regions, region_of_part = csgraph.connected_components(links, directed=False)
    return numbers_of_all, list(_merge_parts(np.concatenate(corners), region_of_part, num_regions))


def _find_joints(a: Int[np.ndarray, "u v"], b: Int[np.ndarray, "u v"]) -> Iterator[Int[np.ndarray, "n 2"]]:
    """Yields the pairs of numbers that touch between two neighbouring planes."""
    padded, (height, width) = np.pad(a, 1), b.shape
    for u, v in product(range(3), range(3)):
        shifted = padded[u : u + height, v : v + width]
        touches = (shifted > 0) & (b > 0)
        yield np.unique(np.stack([shifted[touches], b[touches]], axis=1), axis=0)


def _merge_parts(
    corners: Int[np.ndarray, "n 3 2"], region_of_part: Int[np.ndarray, "n"], num_regions: int
) -> Iterator[ConnectedRegion]:
    """Yields the regions with the boxes around all of their parts."""
    order = np.argsort(region_of_part, kind="stable")
    ends = np.cumsum(np.bincount(region_of_part, minlength=num_regions)).tolist()
    for first_part, end in zip([0, *ends], ends, strict=False):
        parts = order[first_part:end]
        low, high = corners[parts, :, 0].min(0).tolist(), corners[parts, :, 1].max(0).tolist()
        i, j, k = (slice(first, last) for first, last in zip(low, high, strict=True))
        yield ConnectedRegion(tuple((parts + 1).tolist()), (i, j, k))

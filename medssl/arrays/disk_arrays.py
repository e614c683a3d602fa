"""Large arrays in unnamed temporary files, for volumes that should not be in memory as a whole.

Pages of such an array that were read or written count as memory of the process until they are released.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType

import numpy as np
from jaxtyping import Shaped

from medssl.errors import BadInput

MAX_BYTES_IN_MEMORY = 1 << 25  # a smaller array is not worth a file
SLAB_BYTES = 1 << 22


def create_disk_array(shape: Sequence[int], dtype: np.dtype | type) -> Shaped[np.ndarray, "..."]:
    """Returns an array in C order, in a file that vanishes with it; a small array lies in memory.

    Raises:
        BadInput: The folder of temporary files has no space for it.
    """
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if num_bytes <= MAX_BYTES_IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a write into the map of a file would kill the process on a full disk
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                file.truncate(num_bytes)
        except OSError as error:
            raise BadInput(
                f"{tempfile.gettempdir()}: no space for a temporary file of {num_bytes >> 20} MiB "
                f"({error.strerror}); free some, or set TMPDIR to another folder"
            ) from None
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


def allocate_like(array: Shaped[np.ndarray, "..."], shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
    """Returns an array on disk with the axes of `array` in the same order if that lies on disk, else one in memory.

    Args:
        array: An array with as many axes.
        shape: The shape of the new array.
        dtype: Its type.
    """
    if not is_on_disk(array):
        return np.empty(shape, dtype)
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    return create_disk_array([shape[axis] for axis in order], dtype).transpose(np.argsort(order))


def store_on_disk(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Returns the array if it lies on disk or is small, else a copy on disk."""
    if is_on_disk(array) or array.nbytes <= MAX_BYTES_IN_MEMORY:
        return array
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    ordered = array.transpose(order)
    stored = create_disk_array(ordered.shape, array.dtype)
    for index in iterate_slabs(ordered):
        stored[index] = ordered[index]
        release_pages(stored)
    return stored.transpose(np.argsort(order))


def is_on_disk(array: Shaped[np.ndarray, "..."]) -> bool:
    """Returns whether an array, or what it is a view of, lies in a file."""
    return _find_map(array) is not None


def release_pages(*arrays: Shaped[np.ndarray, "..."]) -> None:
    """Frees the memory of the pages of arrays on disk; their values stay, and arrays in memory stay as they are."""
    for array in arrays:
        if (mapped := _find_map(array)) is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def find_slowest_axis(array: Shaped[np.ndarray, "*c i j k"]) -> int:
    """Returns which of the last three axes has the longest step in memory: -3, -2 or -1."""
    return int(np.argmax(np.abs(array.strides[-3:]))) - 3


def iterate_slabs(array: Shaped[np.ndarray, "*c i j k"]) -> Iterator[tuple[slice | EllipsisType, ...]]:
    """Yields the indices of slabs across the slowest axis; the pages of each are released after it."""
    axis = find_slowest_axis(array)
    length = array.shape[axis]
    step = max(1, SLAB_BYTES * length // max(1, array.nbytes))
    for first in range(0, length, step):
        yield (..., slice(first, first + step), *(slice(None),) * (-1 - axis))
        release_pages(array)


def transform_slabs(
    function: Callable[[np.ndarray], np.ndarray],
    source: Shaped[np.ndarray, "*c i j k"],
    target: Shaped[np.ndarray, "*c i j k"],
) -> Shaped[np.ndarray, "*c i j k"]:
    """Writes what a function returns for each slab of an array into another one, which may be the same.

    Args:
        function: Maps the values of any slab to new ones, voxel by voxel.
        source: The array.
        target: An array of the same shape, which is returned.
    """
    for index in iterate_slabs(source):
        target[index] = function(source[index])
        release_pages(target)
    return target


def _find_map(array: Shaped[np.ndarray, "..."]) -> mmap.mmap | None:
    """Returns the map of the file that an array, or what it is a view of, lies in."""
    owner: object = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    return owner

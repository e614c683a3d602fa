"""Encodes the voxels that a stroke changed as runs, which are small enough to send and to store with each event."""

import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, Integer

from medssl.errors import BadInput

Labels = Integer[np.ndarray, "i j k"]
Runs = Int64[np.ndarray, "n 3"]  # index of the first voxel (i fastest), number of voxels, new label


def diff_masks(before: Labels, after: Labels) -> Runs:
    """Returns the runs that turn one label map into the other."""
    old, new = before.ravel(order="F"), after.ravel(order="F")
    changed = np.flatnonzero(old != new)
    starts = np.flatnonzero(np.diff(changed, prepend=-2) - 1 | np.diff(new[changed].astype(np.int64), prepend=-1))
    lengths = np.diff(starts, append=len(changed))
    return np.stack([changed[starts], lengths, new[changed[starts]]], 1).astype(np.int64)


def apply_runs(labels: Labels, runs: Runs) -> Labels:
    """Returns the label map after the runs; raises BadInput if a run leaves it."""
    flat = labels.ravel(order="F").copy()
    if not is_inside(runs, flat.size):
        raise BadInput(f"a stroke leaves the image of {flat.size} voxels; it was drawn on another image")
    for start, length, value in runs:
        flat[start : start + length] = value
    return flat.reshape(labels.shape, order="F")


def crop_runs(
    runs: Runs, shape: tuple[int, int, int], corner: tuple[int, int, int], size: tuple[int, int, int]
) -> Int64[np.ndarray, "m 3"]:
    """Returns the parts of runs inside a box, as runs over the voxels of the box.

    Args:
        runs: Runs over a whole volume.
        shape: The shape of the volume.
        corner: The first voxel of the box.
        size: The number of voxels of the box along i, j, k.
    """
    starts, stops, width = runs[:, 0], runs[:, 0] + runs[:, 1], shape[0]
    counts = np.maximum((stops - 1) // width - starts // width + 1, 0)  # lines of each run
    owner = np.repeat(np.arange(len(runs)), counts)
    line = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[owner] // width
    first = np.maximum(np.maximum(starts[owner] - line * width, 0) - corner[0], 0)
    last = np.minimum(np.minimum(stops[owner] - line * width, width) - corner[0], size[0])
    j, k = line % shape[1] - corner[1], line // shape[1] - corner[2]
    is_cut = (first < last) & (j >= 0) & (j < size[1]) & (k >= 0) & (k < size[2])
    return np.stack([first + size[0] * (j + size[1] * k), last - first, runs[owner, 2]], 1)[is_cut]


def is_inside(runs: Runs, num_voxels: int) -> bool:
    """Whether all runs lie inside an image of `num_voxels` voxels."""
    starts, lengths = runs[:, 0], runs[:, 1]
    return bool(((starts >= 0) & (lengths >= 0) & (lengths <= num_voxels) & (starts <= num_voxels - lengths)).all())


def pack_runs(runs: Runs | Iterable[Iterable[int]]) -> bytes:
    """Returns the runs as compressed bytes; each start is stored as the difference from the one before."""
    table = np.array([list(run) for run in runs], "<i8").reshape(-1, 3)
    table[1:, 0] -= table[:-1, 0].copy()
    return zlib.compress(table.tobytes(), 9)


def unpack_runs(packed: bytes) -> Runs:
    """Returns the runs that `pack_runs` compressed."""
    table = np.frombuffer(zlib.decompress(packed), "<i8").reshape(-1, 3).astype(np.int64)
    table[:, 0] = np.cumsum(table[:, 0])
    return table

"""Represents voxels by runs along the first image axis, and finds which runs touch.

A label map is scanned in blocks of slices `labels[k, j, i]`, the order of voxels in a NIfTI file. A run is a stretch of
one label along i. Runs need a few bytes per line of a structure, where lists of voxels need 24 bytes per voxel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int, Integer, Num, Shaped

from medssl.arrays.resampling import to_contiguous

SLICES_PER_BLOCK = 16
# Steps in (k, j) from a line to the lines after it that share an edge or a corner with it.
NEXT_LINES = ((0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of voxels, in the order of their lines and then along the line.

    Args:
        slice: The index k of each run.
        line: The index j of each run.
        start: The first index i of each run.
        stop: The index i after the last one of each run.
        label: The label value, or the number of the component, of each run.
    """

    slice: Integer[np.ndarray, "n"]
    line: Integer[np.ndarray, "n"]
    start: Integer[np.ndarray, "n"]
    stop: Integer[np.ndarray, "n"]
    label: Integer[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.label)

    def select(self, chosen: Bool[np.ndarray, "n"] | Int[np.ndarray, "m"]) -> "Runs":
        """Returns some of the runs."""
        return Runs(*(column[chosen] for column in self.columns))

    def relabel(self, label: Integer[np.ndarray, "n"]) -> "Runs":
        """Returns the runs with other labels."""
        return replace(self, label=label.astype(np.int32))

    @property
    def columns(self) -> tuple[Integer[np.ndarray, "n"], ...]:
        """The five columns, in the order of the arguments."""
        return self.slice, self.line, self.start, self.stop, self.label

    @property
    def lengths(self) -> Int[np.ndarray, "n"]:
        """The number of voxels of each run."""
        return self.stop.astype(np.int64) - self.start

    def list_ends(self) -> Int[np.ndarray, "m 3"]:
        """Returns the indices (i, j, k) of the first and of the last voxel of each run."""
        first = np.stack([self.start, self.line, self.slice], axis=1).astype(np.int64)
        last = np.stack([self.stop - 1, self.line, self.slice], axis=1).astype(np.int64)
        return np.concatenate([first, last])

    def draw(self, low: Int[np.ndarray, "3"], high: Int[np.ndarray, "3"]) -> Bool[np.ndarray, "k j i"]:
        """Returns the voxels within a box of indices (i, j, k), from `low` up to but not including `high`."""
        shape = tuple(int(n) for n in (high - low)[::-1])
        inside = (self.slice >= low[2]) & (self.slice < high[2]) & (self.line >= low[1]) & (self.line < high[1])
        runs = self.select(inside & (self.stop > low[0]) & (self.start < high[0]))
        steps = np.zeros((shape[0], shape[1], shape[2] + 1), np.int8)
        k, j = runs.slice - low[2], runs.line - low[1]
        np.add.at(steps, (k, j, np.maximum(runs.start - low[0], 0)), 1)
        np.add.at(steps, (k, j, np.minimum(runs.stop - low[0], shape[2])), -1)
        return np.cumsum(steps[..., :-1], axis=-1, dtype=np.int8) > 0

    def swap_slices(self, axis: int) -> "Runs":
        """Returns the same voxels with the image axis `axis` (0 for i, 1 for j, 2 for k) in place of the slices.

        A run of the result lies along i, or along k where i counts the slices.
        """
        if axis == 2 or not len(self):
            return self
        if axis == 1:
            order = np.lexsort((self.start, self.slice, self.line))
            return Runs(self.line, self.slice, self.start, self.stop, self.label).select(order)
        ends = self.list_ends()
        low, high = ends.min(0), ends.max(0) + 1
        return find_runs(np.ascontiguousarray(self.draw(low, high).transpose(2, 1, 0)), low[::-1])


def iterate_blocks(shape: tuple[int, int, int]) -> Iterator[slice]:
    """Yields the slices k of consecutive blocks of a volume of shape (i, j, k)."""
    for first in range(0, shape[2], SLICES_PER_BLOCK):
        yield slice(first, min(first + SLICES_PER_BLOCK, shape[2]))


def order_as_file(voxels: Shaped[np.ndarray, "i j k"], slices: slice) -> Shaped[np.ndarray, "p j i"]:
    """Returns some slices of a volume in the order of a NIfTI file."""
    return to_contiguous(voxels[:, :, slices].T)


def find_runs(labels: Num[np.ndarray, "k j i"] | Bool[np.ndarray, "k j i"], corner: Int[np.ndarray, "3"]) -> Runs:
    """Returns the runs of all labels but 0.

    Args:
        labels: The labels of a block.
        corner: The indices (i, j, k) of the first voxel of the block in its volume.
    """
    num_lines = labels.shape[1]
    rows = np.flatnonzero(labels.any(axis=2))
    lines = labels.reshape(-1, labels.shape[2])[rows]
    changes = lines[:, 1:] != lines[:, :-1]
    starts = np.concatenate([np.ones((len(rows), 1), bool), changes], axis=1) & (lines != 0)
    stops = np.concatenate([changes, np.ones((len(rows), 1), bool)], axis=1) & (lines != 0)
    row, start = np.nonzero(starts)
    stop = np.nonzero(stops)[1] + 1
    return Runs(
        (rows[row] // num_lines + corner[2]).astype(np.int32), (rows[row] % num_lines + corner[1]).astype(np.int32),
        (start + corner[0]).astype(np.int32), (stop + corner[0]).astype(np.int32), lines[row, start].astype(np.int32),
    )  # fmt: skip


def match_runs(runs: Runs, others: Runs, step: tuple[int, int]) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Finds the pairs of runs of one label that share a face, an edge or a corner.

    Args:
        runs: The first runs.
        others: The runs to search.
        step: The step (k, j) from the line of a run to the line of the other one.

    Returns:
        The positions of each pair in `runs` and in `others`.
    """
    if not len(runs) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    num_lines = int(max(runs.line.max(), others.line.max())) + 3
    width = int(max(runs.stop.max(), others.stop.max())) + 2
    key = ((runs.slice.astype(np.int64) + step[0]) * num_lines + runs.line + step[1] + 1) * width
    other_key = (others.slice.astype(np.int64) * num_lines + others.line + 1) * width
    first = np.searchsorted(other_key + others.stop, key + runs.start, "left")
    last = np.searchsorted(other_key + others.start, key + runs.stop, "right")
    counts = np.maximum(last - first, 0)
    a = np.repeat(np.arange(len(runs)), counts)
    b = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    same = runs.label[a] == others.label[b]
    return a[same], b[same]


def count_overlap(runs: Runs, others: Runs, shift: int) -> Int[np.ndarray, "n"]:
    """Returns how many voxels of each run have, `shift` further along i, a voxel of the run paired with it."""
    stop = np.minimum(runs.stop, others.stop - shift)
    return np.maximum(stop.astype(np.int64) - np.maximum(runs.start, others.start - shift), 0)

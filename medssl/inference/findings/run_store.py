"""Keeps the runs of a label map, on disk where they are many, and groups them by structure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

from medssl.arrays.disk_arrays import MAX_BYTES_IN_MEMORY, create_disk_array, release_pages
from medssl.inference.findings.runs import Runs

RUN_BYTES = 20
RUNS_PER_PART = 1 << 18
INDEX_BITS = 20  # of an index in a corner


@dataclass(frozen=True, eq=False)
class GroupedRuns:
    """The runs of all structures, one structure after the other.

    Args:
        columns: The columns of `Runs`; the last one is the number of the structure.
        bounds: The first run of each structure, and the number of runs.
        corners: A number for each structure that grows with i, then j, then k of its first voxel along i.
    """

    columns: Int32[np.ndarray, "5 n"]
    bounds: Int[np.ndarray, "b"]
    corners: Int[np.ndarray, "s"]

    def select(self, number: int) -> Runs:
        """Returns the runs of a structure, in the order of their lines."""
        chosen = np.array(self.columns[:, self.bounds[number] : self.bounds[number + 1]])
        release_pages(self.columns)
        return Runs(*chosen)


class RunStore:
    """Collects runs in the order of their lines."""

    def __init__(self) -> None:
        self._parts: list[Int32[np.ndarray, "5 n"]] = []
        self._recent: list[Runs] = []

    def append(self, runs: Runs) -> None:
        """Adds runs behind the others."""
        self._recent.append(runs)
        if sum(map(len, self._recent)) * RUN_BYTES >= MAX_BYTES_IN_MEMORY:
            self._store_recent()

    def group(self, structure: Int[np.ndarray, "c"], count: int) -> GroupedRuns:
        """Returns the runs by structure.

        Args:
            structure: The number of the structure for each label of the runs.
            count: The number of structures.
        """
        self._store_recent()
        sizes = np.zeros(count, np.int64)
        for part in self._iterate_parts():
            sizes += np.bincount(structure[part[4]], minlength=count)
        bounds = np.append(0, np.cumsum(sizes))
        grouped, free = create_disk_array((5, int(bounds[-1])), np.int32), bounds[:-1].copy()
        corners = np.full(count, np.iinfo(np.int64).max)
        for part in self._iterate_parts():
            number = structure[part[4]]
            order = np.argsort(number, kind="stable")
            part, number = part[:, order], number[order]
            part[4] = number
            first = np.flatnonzero(np.diff(number, prepend=-1))
            lengths = np.diff(np.append(first, len(number)))
            grouped[:, np.repeat(free[number[first]] - first, lengths) + np.arange(len(number))] = part
            free[number[first]] += lengths
            line, slice_ = part[1].astype(np.int64), part[0]
            corner = (((part[2].astype(np.int64) << INDEX_BITS) + line) << INDEX_BITS) + slice_
            corners[number[first]] = np.minimum(corners[number[first]], np.minimum.reduceat(corner, first))
            release_pages(grouped)
        return GroupedRuns(grouped, bounds, corners)

    def _store_recent(self) -> None:
        columns = create_disk_array((5, sum(map(len, self._recent))), np.int32)
        first = 0
        for runs in self._recent:
            columns[:, first : first + len(runs)] = runs.columns
            first += len(runs)
        release_pages(columns)
        self._parts.append(columns)
        self._recent = []

    def _iterate_parts(self) -> Iterator[Int32[np.ndarray, "5 n"]]:
        """Yields copies of a bounded number of runs."""
        for columns in self._parts:
            for first in range(0, columns.shape[1], RUNS_PER_PART):
                yield np.array(columns[:, first : first + RUNS_PER_PART])
                release_pages(columns)

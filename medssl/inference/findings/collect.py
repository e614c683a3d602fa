"""Finds the connected components of a label map that arrives in blocks of slices, with their voxel statistics.

Each block is joined to the one before by the runs of two neighbouring slices; components that meet later are merged at
the end, so the result does not depend on the blocks.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medssl.inference.findings.run_store import GroupedRuns, RunStore
from medssl.inference.findings.runs import NEXT_LINES, Runs, find_runs, match_runs


@dataclass(frozen=True)
class VoxelStatistics:
    """Statistics of the voxels of a structure.

    Args:
        peak: The largest confidence.
        uncertainty: The mean uncertainty; None if it was not predicted.
        mean: The mean intensity of the image; None without an image.
        sd: The standard deviation of the intensity; None without an image.
    """

    peak: float
    uncertainty: float | None
    mean: float | None
    sd: float | None


class ComponentCollector:
    """Collects runs and sums of a label map, block by block.

    Args:
        organs: The label values of organs, whose components form one structure.
    """

    def __init__(self, organs: Collection[int] = ()) -> None:
        self.organs = organs
        self._runs = RunStore()  # labelled by the number of their component
        self._labels: list[Int[np.ndarray, n]] = []
        self._sums: list[Float[np.ndarray, "n 5"]] = []
        self._edges: list[Int[np.ndarray, "2 e"]] = []
        self._last_slice: tuple[Runs, Int[np.ndarray, n]] | None = None
        self._has_uncertainty, self._has_image = False, False

    def add(
        self,
        labels: Num[np.ndarray, "k j i"],
        first_slice: int,
        confidence: Num[np.ndarray, "k j i"],
        uncertainty: Num[np.ndarray, "k j i"] | None = None,
        image: Num[np.ndarray, "k j i"] | None = None,
    ) -> None:
        """Adds the next block of slices.

        Args:
            labels: The labels; 0 is background.
            first_slice: The index k of the first slice.
            confidence: The probability of the label in each voxel.
            uncertainty: The uncertainty in each voxel.
            image: The image.
        """
        self._has_uncertainty, self._has_image = uncertainty is not None, image is not None
        runs = find_runs(labels, np.array([0, 0, first_slice]))
        count_before = sum(map(len, self._labels))
        is_organ = np.isin(runs.label, list(self.organs))
        numbers, count = _number_components(runs, is_organ)
        label = np.zeros(count, np.int64)
        label[numbers] = runs.label
        self._labels.append(label)
        self._sums.append(_sum_by_number(_sum_runs(labels, runs, confidence, uncertainty, image), numbers, count))
        numbers = numbers + count_before
        self._runs.append(runs.relabel(numbers))
        is_first = (runs.slice == first_slice) & ~is_organ
        self._join(runs.select(is_first), numbers[is_first])
        is_last = (runs.slice == first_slice + len(labels) - 1) & ~is_organ
        self._last_slice = runs.select(is_last), numbers[is_last]

    def _join(self, top: Runs, numbers: Int[np.ndarray, "n"]) -> None:
        """Records which components in the first slice of a new block touch one of the slice before it."""
        if self._last_slice is None:
            return
        before, numbers_before = self._last_slice
        pairs = [match_runs(before, top, step) for step in ((1, -1), (1, 0), (1, 1))]
        edges = np.concatenate([np.stack([numbers_before[a], numbers[b]]) for a, b in pairs], axis=1)
        self._edges.append(np.unique(edges, axis=1))

    def merge(self) -> "Structures":
        """Returns the structures of all blocks."""
        labels = np.concatenate([np.zeros(0, np.int64), *self._labels])
        number = _merge_components(
            np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1), labels, self.organs
        )
        count = int(number.max(initial=-1)) + 1
        label = np.zeros(count, np.int64)
        label[number] = labels
        sums = _sum_by_number(np.concatenate([np.zeros((0, 5)), *self._sums]), number, count)
        runs = self._runs.group(number, count)
        return Structures(runs, label, sums, self._has_uncertainty, self._has_image)


@dataclass(frozen=True, eq=False)
class Structures:
    """All structures of a label map: connected components, and organs as a whole.

    Args:
        runs: The runs of all structures.
        label: The label value of each structure.
        sums: The number of voxels, the peak of the confidence, and the sums of uncertainty, intensity and its square.
        has_uncertainty: Whether an uncertainty was given.
        has_image: Whether an image was given.
    """

    runs: GroupedRuns
    label: Int[np.ndarray, "s"]
    sums: Float[np.ndarray, "s 5"]
    has_uncertainty: bool
    has_image: bool

    def order(self, label: int, min_voxels: float) -> list[int]:
        """Returns the numbers of the structures of a label that have at least `min_voxels` voxels, the largest first.

        Of structures of one size, the one that begins first along i, then j, then k comes first.
        """
        chosen = np.flatnonzero((self.label == label) & (self.sums[:, 0] >= min_voxels))
        return [int(chosen[n]) for n in np.lexsort((self.runs.corners[chosen], -self.sums[chosen, 0]))]

    def summarize(self, number: int) -> VoxelStatistics:
        """Returns the statistics of the voxels of a structure."""
        count, peak, uncertainty, total, squares = (float(value) for value in self.sums[number])
        mean = total / count
        sd = math.sqrt(max(0.0, squares / count - mean**2))
        doubt = uncertainty / count if self.has_uncertainty else None
        return VoxelStatistics(peak, doubt, *((mean, sd) if self.has_image else (None, None)))


def _number_components(runs: Runs, is_organ: Bool[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "n"], int]:
    """Returns the component of each run of a block, numbered from 0, and the number of components.

    Args:
        runs: The runs.
        is_organ: Which of them belong to organs; those of one organ are one component.
    """
    lesions, organs = runs.select(~is_organ), runs.label[is_organ]
    pairs = [np.stack(match_runs(lesions, lesions, step)) for step in NEXT_LINES]
    numbers = np.empty(len(runs), np.int64)
    numbers[~is_organ], count = _connect(np.concatenate(pairs, axis=1), len(lesions))
    is_present = np.bincount(organs) > 0
    numbers[is_organ] = (count - 1 + np.cumsum(is_present))[organs]
    return numbers, count + int(is_present.sum())


def _merge_components(
    edges: Int[np.ndarray, "2 e"], labels: Int[np.ndarray, "n"], organs: Collection[int]
) -> Int[np.ndarray, "n"]:
    """Returns the structure of each component: touching components are one, and all components of an organ are one."""
    links = [edges]
    for organ in organs:
        parts = np.flatnonzero(labels == organ)
        links.append(np.stack([parts[:-1], parts[1:]]))
    return _connect(np.concatenate(links, axis=1), len(labels))[0]


def _connect(edges: Int[np.ndarray, "2 e"], count: int) -> tuple[Int[np.ndarray, "n"], int]:
    """Numbers the connected parts of a graph with `count` nodes."""
    if not count:
        return np.zeros(0, np.int64), 0
    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
    number, part = connected_components(graph, directed=False)
    return part.astype(np.int64), int(number)


def _sum_runs(
    labels: Num[np.ndarray, "k j i"],
    runs: Runs,
    confidence: Num[np.ndarray, "k j i"],
    uncertainty: Num[np.ndarray, "k j i"] | None,
    image: Num[np.ndarray, "k j i"] | None,
) -> Float[np.ndarray, "n 5"]:
    """Returns the columns of `Structures.sums` for each run."""
    sums = np.zeros((len(runs), 5))
    if not len(runs):
        return sums
    inside = labels != 0
    first = np.r_[0, np.cumsum(runs.lengths)[:-1]]
    sums[:, 0] = runs.lengths
    sums[:, 1] = np.maximum.reduceat(confidence[inside], first)
    if uncertainty is not None:
        sums[:, 2] = np.add.reduceat(uncertainty[inside].astype(np.float64), first)
    if image is not None:
        values = image[inside].astype(np.float64)
        sums[:, 3], sums[:, 4] = np.add.reduceat(values, first), np.add.reduceat(values**2, first)
    return sums


def _sum_by_number(
    sums: Float[np.ndarray, "n 5"], number: Int[np.ndarray, "n"], count: int
) -> Float[np.ndarray, "s 5"]:
    """Adds up the rows of each number; the second column holds peaks, of which the largest is taken."""
    total = np.zeros((count, sums.shape[1]))
    for column in (0, 2, 3, 4):
        total[:, column] = np.bincount(number, sums[:, column], count)
    np.maximum.at(total[:, 1], number, sums[:, 1])
    return total

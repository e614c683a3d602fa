"""Maps class probabilities from the working grid to the scanner's grid, tile by tile, and decides the class there.

A tile needs only the classes that can win in it. Linear interpolation cannot make a class the largest whose largest
probability around the tile is below the smallest one of another class, or below the winning probability of every
working voxel times the weight that the nearest of them has. So the cost hardly grows with the number of classes, and
the labels are those of all classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy import ndimage, sparse

from medssl.arrays.resampling import weigh_neighbours
from medssl.inference.findings.runs import iterate_blocks
from medssl.volume import Volume

TILE = 32  # voxels per side, in the plane of a slice
MARGIN = 1e-6  # of a probability: rounding must not leave out a class


@dataclass(frozen=True, eq=False)
class DecidedBlock:
    """The prediction of a block of slices, in the order of a NIfTI file.

    Args:
        first_slice: The index k of the first slice.
        labels: The class of each voxel.
        foreground: The probability of not being background.
        confidence: The probability of the class of each voxel; 0 for background.
        doubt: The interpolated uncertainty; 0 where only background is possible, unless it is wanted everywhere.
    """

    first_slice: int
    labels: UInt8[np.ndarray, "k j i"]
    foreground: Float32[np.ndarray, "k j i"]
    confidence: Float32[np.ndarray, "k j i"]
    doubt: Float32[np.ndarray, "k j i"]


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive output voxels along an axis.

    Args:
        out: The output voxels.
        source: The working voxels that they are interpolated from.
        weights: The weights of these.
        least_weight: The weight that some working voxel has at least, for each of the output voxels.
    """

    out: slice
    source: slice
    weights: Float32[np.ndarray, "p q"]
    least_weight: float

    @property
    def size(self) -> int:
        """The number of output voxels."""
        return self.out.stop - self.out.start


Tile = tuple[Stretch, Stretch, Stretch]


@dataclass(frozen=True, eq=False)
class GridMap:
    """The map from a working grid to the grid of a scan.

    Both grids are taken in the order in which a file stores its slices: the first axis of the working grid, "w", is the
    one that the slices of the scan follow, and its rows come in the order of these slices.

    Args:
        order: The working axes that k, j and i of the scan follow.
        is_reversed: Whether the slices run against their working axis.
        change: Maps (k, j, i) to an index of the working grid in its new order.
        source_shape: The shape of the working grid in its new order.
        shape: The shape (k, j, i) of the scan.
        is_filtered: Whether values are filtered against aliasing along the axes where the scan is coarser.
    """

    order: tuple[int, int, int]
    is_reversed: bool
    change: Float[np.ndarray, "4 4"]
    source_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    is_filtered: bool = True

    @classmethod
    def between(cls, working: Volume, scan: Volume, is_filtered: bool = True) -> "GridMap":
        """Returns the map from the grid of a working volume to the grid of a scan.

        Args:
            working: The working volume.
            scan: The scan.
            is_filtered: Whether values are filtered against aliasing where the scan is coarser, on parallel axes.
        """
        change = np.linalg.inv(working.affine) @ scan.affine @ np.eye(4)[:, [2, 1, 0, 3]]
        order = _match_axes(change[:3, :3])
        change = change[[*order, 3]]
        shape = working.shape[order[0]], working.shape[order[1]], working.shape[order[2]]
        is_reversed = bool(change[0, 0] < 0)
        if is_reversed:
            change[0] = -change[0]
            change[0, 3] += shape[0] - 1
        return cls(order, is_reversed, change, shape, (scan.shape[2], scan.shape[1], scan.shape[0]), is_filtered)

    @cached_property
    def is_parallel(self) -> bool:
        """Whether the axes of both grids are parallel, so that they can be interpolated one after the other."""
        size = np.abs(self.change[:3, :3])
        return bool((size[~np.eye(3, dtype=bool)] <= 1e-6 * size.max()).all())

    def iterate_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yields blocks of output slices, each with the working rows that it needs."""
        sides = self._cut(1, slice(0, self.shape[1])), self._cut(2, slice(0, self.shape[2]))
        for out in iterate_blocks((self.shape[2], self.shape[1], self.shape[0])):
            rows, _, _ = self._find_sources((self._cut(0, out), *sides))
            yield out, rows

    def crop(self, working: Volume, rows: slice) -> Volume:
        """Returns the working rows of a block as a volume at its place.

        Args:
            working: A volume on the working grid.
            rows: The rows, as `iterate_blocks` gives them.
        """
        axis, length = self.order[0], self.source_shape[0]
        planes = slice(length - rows.stop, length - rows.start) if self.is_reversed else rows
        shift, index = np.eye(4), [slice(None)] * 3
        shift[axis, 3], index[axis] = planes.start, planes
        return replace(working, voxels=working.voxels[tuple(index)], affine=working.affine @ shift)

    def decide(
        self,
        out: slice,
        rows: slice,
        probability: Float32[np.ndarray, "n w u v"],
        doubt: Float32[np.ndarray, "w u v"],
        needs_doubt: bool,
    ) -> DecidedBlock:
        """Interpolates and decides one block.

        Args:
            out: The output slices.
            rows: Their working rows.
            probability: The class probabilities of these rows, background first.
            doubt: The uncertainty of these rows.
            needs_doubt: Whether the uncertainty is wanted where only background is possible.
        """
        shape = out.stop - out.start, self.shape[1], self.shape[2]
        block = DecidedBlock(out.start, np.zeros(shape, np.uint8), *(np.zeros(shape, np.float32) for _ in range(3)))
        highest, lowest = probability.max(1), probability.min(1)
        winning = probability.max(0).min(0)
        along_k = self._cut(0, out)
        for along_j, along_i in product(*self._tiles):
            tile = along_k, along_j, along_i
            _, u, v = self._find_sources(tile)
            least = float(winning[u, v].min()) * math.prod(side.least_weight for side in tile)
            candidates = _find_candidates(highest[:, u, v], lowest[:, u, v], least)
            has_doubt = needs_doubt or candidates[-1] > 0
            self._decide_tile(block, tile, (rows, u, v), candidates, probability, doubt if has_doubt else None)
        for values in (block.foreground, block.doubt):
            np.clip(values, 0, 1, out=values)
        return block

    def _decide_tile(
        self,
        block: DecidedBlock,
        tile: Tile,
        source: tuple[slice, slice, slice],
        candidates: Int[np.ndarray, "c"],
        probability: Float32[np.ndarray, "n w u v"],
        doubt: Float32[np.ndarray, "w u v"] | None,
    ) -> None:
        """Writes a tile into its block, class by class, which keeps all values in the cache of the processor.

        Args:
            block: The block.
            tile: The output voxels.
            source: The working voxels that they are interpolated from.
            candidates: The classes that can win.
            probability: The class probabilities of the working rows.
            doubt: The uncertainty of the working rows, or None if it is not needed.
        """
        window = np.s_[:, tile[1].out, tile[2].out]
        background = self._sample(tile, source, probability[0])
        block.foreground[window] = 1 - background
        if doubt is not None:
            block.doubt[window] = self._sample(tile, source, doubt)
        if candidates[-1] == 0:
            return
        first, *others = candidates
        best = np.empty((tile[0].size, tile[1].size, tile[2].size), np.float32)
        best[:] = background if first == 0 else self._sample(tile, source, probability[first])
        labels = np.full(best.shape, first, np.uint8)
        for label in others:
            sampled = self._sample(tile, source, probability[label])
            np.putmask(labels, sampled > best, label)
            np.maximum(best, sampled, out=best)
        block.labels[window] = labels
        block.confidence[window] = best * (labels > 0) if first == 0 else best

    def _find_sources(self, tile: Tile) -> tuple[slice, slice, slice]:
        """Returns the working voxels that a box of output voxels is interpolated from."""
        if self.is_parallel:
            return tile[0].source, tile[1].source, tile[2].source
        corners = np.array(list(product(*((side.out.start, side.out.stop - 1) for side in tile))))
        index = corners @ self.change[:3, :3].T + self.change[:3, 3]
        last = np.array(self.source_shape) - 1
        low = np.floor(index.min(0) - MARGIN).clip(0, last).astype(int)
        high = np.ceil(index.max(0) + MARGIN).clip(0, last).astype(int) + 1
        w, u, v = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return w, u, v

    def _sample(
        self, tile: Tile, source: tuple[slice, slice, slice], rows: Float32[np.ndarray, "w u v"]
    ) -> Float32[np.ndarray, "k j i"]:
        """Interpolates values at the voxels of a tile; one voxel is returned for values that are the same in all."""
        values = rows[:, source[1], source[2]]
        if values.max() - values.min() <= MARGIN:
            return values[:1, :1, :1]
        if not self.is_parallel:
            return self._sample_oblique(tile, source, values)
        along_w, along_u, along_v = (side.weights for side in tile)
        height, width, _ = values.shape
        lines = values.reshape(height * width, -1) @ along_v.T
        planes = along_u @ lines.reshape(height, width, -1)
        voxels: Float32[np.ndarray, "k j i"] = (along_w @ planes.reshape(height, -1)).reshape(-1, *planes.shape[1:])
        return voxels

    def _sample_oblique(
        self, tile: Tile, source: tuple[slice, slice, slice], values: Float32[np.ndarray, "w u v"]
    ) -> Float32[np.ndarray, "k j i"]:
        matrix = self.change[:3, :3]
        offset = matrix @ [side.out.start for side in tile] + self.change[:3, 3] - [side.start for side in source]
        shape = tuple(side.size for side in tile)
        return ndimage.affine_transform(values, matrix, offset, output_shape=shape, order=1, mode="nearest")

    @cached_property
    def _tiles(self) -> tuple[list[Stretch], list[Stretch]]:
        """The stretches of j and of i that tiles are made of."""
        j, i = (
            [self._cut(axis, slice(start, min(start + TILE, length))) for start in range(0, length, TILE)]
            for axis, length in ((1, self.shape[1]), (2, self.shape[2]))
        )
        return j, i

    def _cut(self, axis: int, out: slice) -> Stretch:
        """Returns a stretch of an output axis; of oblique grids, it has no source of its own."""
        if not self.is_parallel:
            return Stretch(out, slice(0), np.zeros((0, 0), np.float32), 0.5)
        weights = self._weights[axis][out].toarray()
        columns = np.flatnonzero(weights.any(0))
        source = slice(int(columns[0]), int(columns[-1]) + 1)
        return Stretch(out, source, weights[:, source], float(weights.max(1).min()))

    @cached_property
    def _weights(self) -> tuple[sparse.csr_array, ...]:
        """The weights of the working voxels for each output voxel, one axis after the other."""
        return tuple(
            weigh_neighbours(
                self.change[n, n] * np.arange(self.shape[n]) + self.change[n, 3], self.source_shape[n], self.is_filtered
            )
            for n in range(3)
        )


def _match_axes(change: Float[np.ndarray, "3 3"]) -> tuple[int, int, int]:
    """Returns the row of a matrix that each column follows most closely, every row once."""
    remaining, order = np.abs(change / np.linalg.norm(change, axis=0)), [0, 0, 0]
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(remaining)), (3, 3))
        order[int(column)] = int(row)
        remaining[row], remaining[:, column] = -1, -1
    return order[0], order[1], order[2]


def _find_candidates(
    highest: Float32[np.ndarray, "n u v"], lowest: Float32[np.ndarray, "n u v"], least: float
) -> Int[np.ndarray, "c"]:
    """Returns the classes that can have the largest probability between some voxels, in ascending order.

    Args:
        highest: The largest probability of each class over the rows.
        lowest: The smallest one.
        least: A probability that the largest one exceeds everywhere.
    """
    certain = max(float(lowest.min((1, 2)).max()), least)
    return np.flatnonzero(highest.max((1, 2)) >= certain - MARGIN)

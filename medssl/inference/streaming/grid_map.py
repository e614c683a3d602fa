"""Maps class probabilities from the working grid to the scanner's grid, tile by tile, and decides the class there.

A tile needs only the classes that can win in it: where the largest probability of a class around the tile is below the
smallest one of another class, linear interpolation cannot make it the largest. Most tiles keep one or two classes, so
the cost hardly grows with their number, and the labels are those of all classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy import ndimage, sparse

from medssl.inference.findings.runs import iterate_blocks
from medssl.resampling import weigh_neighbours
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
    """

    order: tuple[int, int, int]
    is_reversed: bool
    change: Float[np.ndarray, "4 4"]
    source_shape: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def between(cls, working: Volume, scan: Volume) -> "GridMap":
        """Returns the map from the grid of a working volume to the grid of a scan."""
        change = np.linalg.inv(working.affine) @ scan.affine @ np.eye(4)[:, [2, 1, 0, 3]]
        order = _match_axes(change[:3, :3])
        change = change[[*order, 3]]
        shape = working.shape[order[0]], working.shape[order[1]], working.shape[order[2]]
        is_reversed = bool(change[0, 0] < 0)
        if is_reversed:
            change[0] = -change[0]
            change[0, 3] += shape[0] - 1
        return cls(order, is_reversed, change, shape, (scan.shape[2], scan.shape[1], scan.shape[0]))

    @cached_property
    def is_parallel(self) -> bool:
        """Whether the axes of both grids are parallel, so that they can be interpolated one after the other."""
        size = np.abs(self.change[:3, :3])
        return bool((size[~np.eye(3, dtype=bool)] <= 1e-6 * size.max()).all())

    def iterate_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yields blocks of output slices, each with the working rows that it needs."""
        for out in iterate_blocks((self.shape[2], self.shape[1], self.shape[0])):
            rows, _, _ = self._find_sources((out, slice(0, self.shape[1]), slice(0, self.shape[2])))
            yield out, rows

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
        for j in range(0, shape[1], TILE):
            for i in range(0, shape[2], TILE):
                tile = out, slice(j, min(j + TILE, shape[1])), slice(i, min(i + TILE, shape[2]))
                _, u, v = self._find_sources(tile)
                candidates = _find_candidates(highest[:, u, v], lowest[:, u, v])
                if candidates[-1] == 0 and not needs_doubt and _is_constant(highest[0, u, v], lowest[0, u, v]):
                    block.foreground[:, tile[1], tile[2]] = 1 - highest[0, u, v].max()
                    continue
                classes = candidates if candidates[0] == 0 else np.r_[0, candidates]
                parts = probability[classes, :, u, v]
                if needs_doubt or classes[-1] > 0:
                    parts = np.concatenate([parts, doubt[None, :, u, v]])
                sampled = self._sample(tile, (rows, u, v), parts)
                _store(block, tile[1:], candidates, sampled, len(classes) - len(candidates))
        return block

    def _find_sources(self, tile: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """Returns the working voxels that a box of output voxels is interpolated from."""
        if self.is_parallel:
            w, u, v = (_span(self._weights[axis][side.start : side.stop]) for axis, side in enumerate(tile))
            return w, u, v
        corners = np.array(list(product(*((side.start, side.stop - 1) for side in tile))))
        index = corners @ self.change[:3, :3].T + self.change[:3, 3]
        last = np.array(self.source_shape) - 1
        low = np.floor(index.min(0) - MARGIN).clip(0, last).astype(int)
        high = np.ceil(index.max(0) + MARGIN).clip(0, last).astype(int) + 1
        w, u, v = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return w, u, v

    def _sample(
        self,
        tile: tuple[slice, slice, slice],
        source: tuple[slice, slice, slice],
        parts: Float32[np.ndarray, "c w u v"],
    ) -> Float32[np.ndarray, "c k j i"]:
        """Interpolates channels at the voxels of a tile, from the working voxels of `source`."""
        if not self.is_parallel:
            return self._sample_oblique(tile, source, parts)
        along_w, along_u, along_v = (
            weights[out.start : out.stop, box.start : box.stop].toarray()
            for weights, out, box in zip(self._weights, tile, source, strict=True)
        )
        count, height, width, _ = parts.shape
        lines = parts.reshape(count * height * width, -1) @ along_v.T
        planes = along_u @ lines.reshape(count, height, width, -1)
        voxels: Float32[np.ndarray, "c k j i"] = (along_w @ planes.reshape(count, height, -1)).reshape(
            count, len(along_w), *planes.shape[2:]
        )
        return voxels

    def _sample_oblique(
        self,
        tile: tuple[slice, slice, slice],
        source: tuple[slice, slice, slice],
        parts: Float32[np.ndarray, "c w u v"],
    ) -> Float32[np.ndarray, "c k j i"]:
        matrix = self.change[:3, :3]
        offset = matrix @ [side.start for side in tile] + self.change[:3, 3] - [side.start for side in source]
        shape = tuple(side.stop - side.start for side in tile)
        sampled = [
            ndimage.affine_transform(part, matrix, offset, output_shape=shape, order=1, mode="nearest")
            for part in parts
        ]
        return np.stack(sampled)

    @cached_property
    def _weights(self) -> tuple[sparse.csr_array, ...]:
        """The weights of the working voxels for each output voxel, one axis after the other."""
        return tuple(
            weigh_neighbours(self.change[n, n] * np.arange(self.shape[n]) + self.change[n, 3], self.source_shape[n])
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


def _span(weights: sparse.csr_array) -> slice:
    """Returns the columns from the first to the last with a weight."""
    columns = weights.indices[weights.data != 0]
    return slice(int(columns.min()), int(columns.max()) + 1)


def _find_candidates(highest: Float32[np.ndarray, "n u v"], lowest: Float32[np.ndarray, "n u v"]) -> np.ndarray:
    """Returns the classes that can have the largest probability between some voxels, in ascending order."""
    certain = lowest.min((1, 2)).max()
    return np.flatnonzero(highest.max((1, 2)) >= certain - MARGIN)


def _is_constant(highest: Float32[np.ndarray, "u v"], lowest: Float32[np.ndarray, "u v"]) -> bool:
    """Returns whether a probability is the same in a whole tile."""
    return bool(highest.max() - lowest.min() <= MARGIN)


def _store(
    block: DecidedBlock,
    tile: tuple[slice, slice],
    candidates: Int[np.ndarray, "c"],
    sampled: Float32[np.ndarray, "m k j i"],
    first: int,
) -> None:
    """Writes a tile into its block.

    Args:
        block: The block.
        tile: The rows j and columns i of the tile.
        candidates: The classes that can win.
        sampled: The probability of background, those of the candidates from `first` on, and the uncertainty if needed.
        first: The position of the first candidate.
    """
    window = np.s_[:, tile[0], tile[1]]
    block.foreground[window] = np.clip(1 - sampled[0], 0, 1)
    if len(sampled) > first + len(candidates):
        block.doubt[window] = np.clip(sampled[-1], 0, 1)
    if candidates[-1] == 0:
        return
    best = sampled[first : first + len(candidates)]
    winner = best.argmax(0)
    labels = candidates[winner].astype(np.uint8)
    block.labels[window] = labels
    block.confidence[window] = np.where(labels > 0, best.max(0), 0)

"""Recognizes copies of a scan by sketches of 144 bytes, whether resampled, noisy, brighter or cropped by a few percent.

A sketch holds the signed square roots of 576 steps between neighbouring cells of a thumbnail, each rounded to four
levels. A scan is compared with it in full precision, and cropped in many ways until both agree best. A precise query
against coarse codes after Jegou et al., "Product quantization for nearest neighbor search" (2011),
https://doi.org/10.1109/TPAMI.2010.57.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from medssl.data.fingerprint import THUMBNAIL_SIZE, apply_along
from medssl.data.pools.keyed_permutation import permute_index

COARSE_SIZE = 12  # cells along an axis of the grid on which two scans are compared
ALL_STEPS, NUM_STEPS = 3 * COARSE_SIZE**2 * (COARSE_SIZE - 1), 576
SKETCH_BYTES = NUM_STEPS // 4
# A sketch must mean the same everywhere, so that its steps do not come from a library's random numbers.
STEPS: Any = np.array([permute_index(n, ALL_STEPS, 0, 0) for n in range(NUM_STEPS)])
# The best four levels for normal numbers: Max, "Quantizing for minimum distortion" (1960).
LEVELS: Any = np.array([-1.51, -0.45, 0.45, 1.51], np.float32)
BOUNDS = (-0.98, 0.0, 0.98)
SHIFTS: Any = np.array([0, 2, 4, 6], np.uint8)  # bits of the four steps of a byte
MAX_STEP = 2.5  # root mean squares at which steps of a scan are clipped
NEAR = 0.58  # correlation, at the best of a few crops, from which on finer crops are tried
ALIKE = 0.855  # correlation of copies: they reach 0.87 and more, two patients at most 0.845 on four real data sets
EDGES = tuple(0.03 * n for n in range(-3, 4))  # fractions of an axis that are cropped; negative ones lie outside
CROPS = tuple(product(EDGES, EDGES))  # at the lower and at the upper end
NO_CROP, INWARDS, OUTWARDS = (CROPS.index((edge, edge)) for edge in (EDGES[3], EDGES[5], EDGES[1]))
BLOCK = 4096  # sketches that are compared at once
SWEEPS = 2  # over the axes, in the search for the best crop

Cells = Float32[np.ndarray, "*t n n n"]
Steps = Float32[np.ndarray, "t 576"]
Sketch = UInt8[np.ndarray, "144"]
Thumbnail = UInt8[np.ndarray, "m m m"]


@dataclass(frozen=True)
class Likeness:
    """A scan and a sketch that look alike.

    Attributes:
        scan: Number of the scan.
        sketch: Number of the sketch.
        correlation: Correlation of their steps, at most 1.
    """

    scan: int
    sketch: int
    correlation: float


def make_sketch(thumbnail: Thumbnail) -> Sketch:
    """Rounds steps of a thumbnail to four levels, in units of their root mean square."""
    steps, _ = _crop((NO_CROP,) * 3, thumbnail)
    codes = np.digitize(steps / max(1e-6, float(np.sqrt(np.mean(steps**2)))), BOUNDS).astype(np.uint8)
    return np.bitwise_or.reduce(codes.reshape(-1, 4) << SHIFTS, axis=1)


def find_copies(thumbnails: Sequence[Thumbnail], sketches: UInt8[np.ndarray, "s 144"]) -> Iterator[Likeness]:
    """Finds the scans that look like a sketched one, also if either was cropped by up to 9 % at an end of an axis."""
    crops = [_crop_coarsely(thumbnail) for thumbnail in thumbnails]
    for start in range(0, len(sketches), BLOCK):
        steps = decode_sketches(sketches[start : start + BLOCK])
        for number, thumbnail in enumerate(thumbnails):
            near = correlate(*crops[number], steps).max(0) > NEAR
            for index in np.flatnonzero(near).tolist():
                correlation = measure_likeness(thumbnail, steps[index])
                if correlation > ALIKE:
                    yield Likeness(number, start + index, correlation)


def decode_sketches(sketches: UInt8[np.ndarray, "s 144"]) -> Steps:
    """Returns the steps of sketches in units of their root mean square."""
    codes = (sketches[..., None] >> SHIFTS) & 3
    steps: Steps = LEVELS[codes.reshape(len(sketches), NUM_STEPS)]
    return steps


def measure_likeness(thumbnail: Thumbnail, steps: Float32[np.ndarray, "576"]) -> float:
    """Computes the correlation of a scan with a sketch at its best crop, which is searched one axis after the other."""
    crops, best = [NO_CROP] * 3, 0.0
    for axis in list(range(3)) * SWEEPS:
        cells = thumbnail.astype(np.float32)
        for other in {0, 1, 2} - {axis}:
            cells = apply_along(CROP_MATRICES[crops[other]], cells, other)
        candidates = np.moveaxis(np.tensordot(CROP_MATRICES, cells, (2, axis)), 1, axis + 1)
        rows = [VALID_CELLS[[crop]] for crop in crops]
        rows[axis] = VALID_CELLS
        correlations = correlate(_take_steps(candidates), _mask_steps(rows), steps[None])[:, 0]
        crops[axis], best = int(correlations.argmax()), float(correlations.max())
    return best


def correlate(
    scan: Steps, mask: Bool[np.ndarray, "t 576"], steps: Float32[np.ndarray, "s 576"]
) -> Float32[np.ndarray, "t s"]:
    """Computes the correlation of each crop of a scan with each sketch over the valid steps of the crop."""
    valid = mask.astype(np.float32)
    size = np.sqrt((scan**2 * valid).sum(1, keepdims=True) / valid.sum(1, keepdims=True).clip(1)).clip(1e-6)
    scaled = (scan / size).clip(-MAX_STEP, MAX_STEP) * valid
    energy = (scaled**2).sum(1, keepdims=True) * (valid @ (steps**2).T)
    return (scaled @ steps.T) / np.sqrt(energy.clip(1e-12))


def _crop_coarsely(thumbnail: Thumbnail) -> tuple[Steps, Bool[np.ndarray, "t 576"]]:
    """Returns the steps of a scan with each axis as it is, cropped, or extended, and which of them are valid."""
    crops = [_crop(crop, thumbnail) for crop in product((NO_CROP, INWARDS, OUTWARDS), repeat=3)]
    return np.stack([steps for steps, _ in crops]), np.concatenate([mask for _, mask in crops])


def _crop(crop: Sequence[int], thumbnail: Thumbnail) -> tuple[Float32[np.ndarray, "576"], Bool[np.ndarray, "1 576"]]:
    """Returns the steps of a scan whose axes are cropped, as numbers of CROPS, and which of them are valid."""
    cells = thumbnail.astype(np.float32)
    for axis, number in enumerate(crop):
        cells = apply_along(CROP_MATRICES[number], cells, axis)
    return _take_steps(cells), _mask_steps([VALID_CELLS[[number]] for number in crop])


def _take_steps(cells: Cells) -> Float32[np.ndarray, "*t 576"]:
    """Returns the steps between neighbouring cells that a sketch holds; the root lets the body's surface count less."""
    all_steps = [np.diff(cells, axis=axis).reshape(*cells.shape[:-3], -1) for axis in (-3, -2, -1)]
    steps = np.concatenate(all_steps, -1)[..., STEPS]
    return np.sign(steps) * np.sqrt(np.abs(steps))


def _mask_steps(rows: Sequence[Bool[np.ndarray, "_ n"]]) -> Bool[np.ndarray, "t 576"]:
    """Returns which steps lie between valid cells, from the valid cells along each axis."""
    i, j, k = rows
    cells = i[:, :, None, None] & j[:, None, :, None] & k[:, None, None, :]
    steps = []
    for axis in (1, 2, 3):
        along = np.moveaxis(cells, axis, 1)
        steps.append(np.moveaxis(along[:, 1:] & along[:, :-1], 1, axis).reshape(len(cells), -1))
    return np.concatenate(steps, 1)[:, STEPS]


def _make_crop_matrix(low: float, high: float) -> Float32[np.ndarray, "c m"]:
    """Computes the matrix that crops fractions off the ends of an axis of a thumbnail and averages the rest to cells.

    Cells that reach beyond the original have a sum below 1.
    """
    positions = (low + (np.arange(THUMBNAIL_SIZE) + 0.5) / THUMBNAIL_SIZE * (1 - low - high)) * THUMBNAIL_SIZE - 0.5
    is_inside = (positions >= -0.5) & (positions <= THUMBNAIL_SIZE - 0.5)
    nearest = positions.clip(0, THUMBNAIL_SIZE - 1)[:, None] - np.arange(THUMBNAIL_SIZE)
    fine = np.maximum(0, 1 - np.abs(nearest)) * is_inside[:, None]
    return fine.reshape(COARSE_SIZE, -1, THUMBNAIL_SIZE).mean(1).astype(np.float32)


CROP_MATRICES: Any = np.stack([_make_crop_matrix(*crop) for crop in CROPS])
VALID_CELLS: Any = CROP_MATRICES.sum(2) > 0.99

"""Recognizes copies of a scan by codes of 160 bytes, whether resampled, noisy, brighter or cropped by a few percent.

A code holds a sixth of the steps between neighbouring cells of a thumbnail, each as one of three levels. A scan is
compared with it in full precision: a precise query against coarse codes, after Jegou et al., "Product quantization for
nearest neighbor search" (2011), https://doi.org/10.1109/TPAMI.2010.57. Unlike there, the query is cropped in many ways
until both agree best, and the agreement is divided by that of the code with the scan that it was made of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from medssl.data.fingerprint import THUMBNAIL_SIZE, apply_along

COARSE_SIZE = 12  # cells along an axis of the grid on which scans are compared
LATTICE, PERIOD = (3, 1, 2), 6  # coded are steps at cells 3 i + j + 2 k = 0, 2, 4 modulo 6, for the three axes
NUM_STEPS = 3 * COARSE_SIZE**2 * (COARSE_SIZE - 1) // PERIOD
LEVELS_PER_BYTE = 5  # of three levels, as 3**5 < 256
CODE_BYTES = -(-NUM_STEPS // LEVELS_PER_BYTE) + 1  # the last one is the agreement of the code with its own scan
FLAT_FRACTION = 1 / 3  # of the steps, the smallest ones, that count as neither rise nor fall
SOFTNESS = 0.02  # step, in units of network input, that counts half as much as a very large one
SEARCH = ((0.03, 3), (0.03, 1), (0.015, 1), (0.0075, 1))  # fraction of an axis, and such steps to either side
MAX_CROP = 0.09  # fraction of an axis at an end; negative where the scan lacks what the coded one has
OVERLAP_POWER = 0.05  # of the coded steps that a crop has in common, which reduces agreements on few of them
FIRST_CROPS = tuple(product((0.0, 0.06, -0.06), repeat=3))  # at both ends of each axis, which are tried on every code
NEAR = 0.65  # similarity at the best of them from which on finer crops are tried
ALIKE = 0.93  # similarity of copies; benchmarks/leak_traces.py measures how far copies and patients are from it
BLOCK = 4096  # codes that are compared at once

Code = UInt8[np.ndarray, "160"]
Thumbnail = UInt8[np.ndarray, "m m m"]
Crops = Float[np.ndarray, "3 2"]


@dataclass(frozen=True)
class Likeness:
    """A code that looks like a scan.

    Attributes:
        index: Number of the code.
        similarity: Agreement of the scan with the code, 1 for the scan that it was made of.
    """

    index: int
    similarity: float


def encode_appearance(thumbnail: Thumbnail, every: int = 1) -> Code:
    """Codes a thumbnail in 160 bytes.

    Args:
        thumbnail: A picture by `medssl.data.fingerprint.thumbnail`.
        every: Only every n-th step is coded; the others count as flat.
    """
    steps = _soften(_take_steps(_crop_axes(thumbnail, np.zeros((3, 2)))[0][None]))[0]
    is_steep = np.abs(steps) > np.quantile(np.abs(steps), FLAT_FRACTION)
    levels = (np.sign(steps) * is_steep * (np.arange(NUM_STEPS) % every == 0)).astype(np.float32)
    agreement = _correlate(steps[None], np.ones((1, NUM_STEPS), bool), levels[None])[0, 0]
    digits = np.zeros((CODE_BYTES - 1) * LEVELS_PER_BYTE, np.uint8)
    digits[:NUM_STEPS] = levels + 1
    packed = digits.reshape(-1, LEVELS_PER_BYTE) @ (3 ** np.arange(LEVELS_PER_BYTE))
    return np.append(packed, np.ceil(255 * agreement)).astype(np.uint8)


def find_copies(thumbnail: Thumbnail, codes: UInt8[np.ndarray, "n 160"]) -> Iterator[Likeness]:
    """Finds the codes that look like a scan, also if either was cropped by up to 9 % at an end of an axis."""
    for index in find_near(thumbnail, codes):
        similarity = measure_similarity(thumbnail, codes[index])
        if similarity > ALIKE:
            yield Likeness(index, similarity)


def find_near(thumbnail: Thumbnail, codes: UInt8[np.ndarray, "n 160"]) -> Iterator[int]:
    """Finds the numbers of the codes that resemble a scan at one of a few crops, so that finer ones are worth a try."""
    first = [_crop_axes(thumbnail, np.repeat(crop, 2).reshape(3, 2)) for crop in FIRST_CROPS]
    steps = _soften(_take_steps(np.stack([cells for cells, _ in first])))
    masks = np.concatenate([_mask_steps([row[None] for row in rows]) for _, rows in first])
    for start in range(0, len(codes), BLOCK):
        similarities = _measure_agreement(steps, masks, codes[start : start + BLOCK]).max(0)
        yield from (start + np.flatnonzero(similarities > NEAR)).tolist()


def measure_similarity(thumbnail: Thumbnail, code: Code) -> float:
    """Computes how similar a scan is to a coded one at its best crop, which is searched one axis after the other.

    Returns:
        The agreement of their steps; 1 for the scan that was coded, and about 0 for unlike ones.
    """
    cells, crops, best = thumbnail.astype(np.float32) / 255, np.zeros((3, 2)), 0.0
    for fraction, reach in SEARCH:
        offsets = fraction * np.array(list(product(range(-reach, reach + 1), repeat=2)))
        for axis in range(3):
            candidates = (crops[axis] + offsets).clip(-MAX_CROP, MAX_CROP)
            similarities = _try_crops(cells, crops, axis, candidates, code)
            best = float(similarities.max())
            crops[axis] = candidates[similarities.argmax()]
    return best


def _try_crops(
    cells: Float32[np.ndarray, "m m m"], crops: Crops, axis: int, candidates: Float[np.ndarray, "t 2"], code: Code
) -> Float32[np.ndarray, "t"]:
    """Computes the similarity to a code with each candidate for the crops of one axis."""
    rows = []
    for other in range(3):
        matrices, inside = _make_crop_matrices(candidates if other == axis else crops[[other]])
        rows.append(inside)
        if other != axis:
            cells = apply_along(matrices[0], cells, other)
    along, _ = _make_crop_matrices(candidates)
    cropped = np.moveaxis(np.tensordot(along, cells, (2, axis)), 1, axis + 1)
    return _measure_agreement(_soften(_take_steps(cropped)), _mask_steps(rows), code[None])[:, 0]


def _measure_agreement(
    steps: Float32[np.ndarray, "t s"], masks: Bool[np.ndarray, "t s"], codes: UInt8[np.ndarray, "n 160"]
) -> Float32[np.ndarray, "t n"]:
    """Computes the correlation of crops with codes, relative to that of each code with its own scan."""
    digits = codes[:, :-1, None] // (3 ** np.arange(LEVELS_PER_BYTE, dtype=np.uint8)) % 3
    levels = digits.reshape(len(codes), -1)[:, :NUM_STEPS].astype(np.float32) - 1
    return _correlate(steps, masks, levels) * 255 / codes[:, -1].clip(1).astype(np.float32)


def _correlate(
    steps: Float32[np.ndarray, "t s"], masks: Bool[np.ndarray, "t s"], levels: Float32[np.ndarray, "n s"]
) -> Float32[np.ndarray, "t n"]:
    """Computes the correlation of each crop with each code over the valid steps, less where these are few."""
    valid = masks.astype(np.float32)
    shared = valid @ (levels**2).T
    energy = (steps**2 * valid).sum(1, keepdims=True) * shared
    overlap: Float32[np.ndarray, "t n"] = (shared / (levels**2).sum(1).clip(1)) ** OVERLAP_POWER
    return overlap * ((steps * valid) @ levels.T) / np.sqrt(energy.clip(1e-12))


def _crop_axes(
    thumbnail: Thumbnail, crops: Crops
) -> tuple[Float32[np.ndarray, "c c c"], Sequence[Bool[np.ndarray, "c"]]]:
    """Returns the coarse cells of a cropped thumbnail, and which of them along each axis lie inside it."""
    cells = thumbnail.astype(np.float32) / 255
    matrices, inside = _make_crop_matrices(crops)
    for axis, matrix in enumerate(matrices):
        cells = apply_along(matrix, cells, axis)
    return cells, list(inside)


def _make_crop_matrices(
    crops: Float[np.ndarray, "t 2"],
) -> tuple[Float32[np.ndarray, "t c m"], Bool[np.ndarray, "t c"]]:
    """Computes matrices that crop fractions off the ends of a row of a thumbnail and average the rest to coarse cells.

    Returns:
        The matrices, and which coarse cells lie inside the thumbnail, since crops may be negative.
    """
    low, high = crops[:, :1], crops[:, 1:]
    positions = (low + (np.arange(THUMBNAIL_SIZE) + 0.5) / THUMBNAIL_SIZE * (1 - low - high)) * THUMBNAIL_SIZE - 0.5
    is_inside = (positions >= -0.5) & (positions <= THUMBNAIL_SIZE - 0.5)
    distances = np.abs(positions.clip(0, THUMBNAIL_SIZE - 1)[..., None] - np.arange(THUMBNAIL_SIZE))
    weights = (1 - distances).clip(0) * is_inside[..., None]
    shape = (len(crops), COARSE_SIZE, THUMBNAIL_SIZE // COARSE_SIZE)
    return weights.reshape(*shape, -1).mean(2).astype(np.float32), is_inside.reshape(shape).all(2)


def _take_steps(cells: Float32[np.ndarray, "t c c c"]) -> Float32[np.ndarray, "t s"]:
    """Returns the steps between neighbouring cells that a code holds."""
    return np.concatenate([np.diff(cells, axis=axis + 1)[:, PLACES[axis]] for axis in range(3)], 1)


def _mask_steps(rows: Sequence[Bool[np.ndarray, "_ c"]]) -> Bool[np.ndarray, "t s"]:
    """Returns which coded steps lie between cells inside the scan, from those along each axis."""
    i, j, k = rows
    inside = i[:, :, None, None] & j[:, None, :, None] & k[:, None, None, :]
    before, after = range(COARSE_SIZE - 1), range(1, COARSE_SIZE)
    masks = [inside.take(before, axis) & inside.take(after, axis) for axis in (1, 2, 3)]
    return np.concatenate([mask[:, PLACES[axis]] for axis, mask in enumerate(masks)], 1)


def _soften(steps: Float32[np.ndarray, "t s"]) -> Float32[np.ndarray, "t s"]:
    """Compresses steps to -1 to 1, so that the surface of the body does not outweigh its interior."""
    return steps / (np.abs(steps) + SOFTNESS)


def _find_places(axis: int) -> Bool[np.ndarray, "p q r"]:
    """Masks the steps along an axis that a code holds: an even lattice, so that they repeat each other least."""
    shape = [COARSE_SIZE - (other == axis) for other in range(3)]
    phase = np.tensordot(np.array(LATTICE), np.indices(shape), 1) - axis * PERIOD // 3
    return phase % PERIOD == 0


PLACES: Any = tuple(_find_places(axis) for axis in range(3))

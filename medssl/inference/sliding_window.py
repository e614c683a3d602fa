"""Sliding-window inference on volumes of any size, with memory bounded by the depth of one crop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from medssl.arrays.disk_arrays import release_pages

Size = tuple[int, int, int]
Precision = Literal["fp32", "bf16"]  # of the convolutions of a network
DeviceArray = Any  # of NumPy or of torch, on the device of a network
ROWS_PER_SLAB = 8
OVERLAP = 0.5  # of a window with the next one


@dataclass(frozen=True)
class WindowStyle:
    """How windows are weighted, and how a volume that is smaller than a window is padded.

    Args:
        is_gaussian: Whether a window counts less towards its border; otherwise all its voxels count alike.
        repeats_edge: Whether the padding repeats the border of the volume; otherwise it is 0.
    """

    is_gaussian: bool = True
    repeats_edge: bool = False


GAUSSIAN = WindowStyle()


@runtime_checkable
class Network(Protocol):
    """A network on a device, and the arrays there, which the sliding window multiplies, adds and cuts."""

    def __call__(self, windows: Float32[np.ndarray, "b c i j k"]) -> DeviceArray:
        """Returns the outputs for windows, a new array of shape "b n i j k"."""

    def zeros(self, shape: tuple[int, ...]) -> DeviceArray:
        """Returns zeros on the device."""

    def to_device(self, array: Float32[np.ndarray, "..."]) -> DeviceArray:
        """Returns an array of NumPy as one of the device."""

    def to_host(self, array: DeviceArray) -> Float32[np.ndarray, "..."]:
        """Returns an array of the device as one of NumPy."""


def sliding_window_inference(
    x: Float[np.ndarray, "c i j k"], network: Network, crop: Size, overlap: float = OVERLAP, batch_size: int = 4
) -> Float32[np.ndarray, "n i j k"]:
    """Returns the Gaussian-weighted mean of a network's output over all windows that cover a voxel.

    Args:
        x: The volume.
        network: The network to apply.
        crop: The size of the windows in voxels. A smaller volume is padded with zeros.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
    """
    return np.concatenate(list(stream_slabs(x, network, crop, overlap, batch_size)), axis=1)


def stream_slabs(
    x: Float[np.ndarray, "c i j k"],
    network: Network,
    crop: Size,
    overlap: float = OVERLAP,
    batch_size: int = 4,
    axis: int = 0,
    is_reversed: bool = False,
    is_wanted: Callable[[Size, Size], bool] | None = None,
    style: WindowStyle = GAUSSIAN,
) -> Iterator[Float32[np.ndarray, "n p q r"]]:
    """Yields the result of `sliding_window_inference` in slabs along an axis, as soon as no later window covers them.

    Weights, window positions and padding equal those of MONAI's `sliding_window_inference`. The 32-bit sums span
    one crop along the axis, never the whole volume.

    Args:
        x: The volume.
        network: The network to apply.
        crop: The size of the windows in voxels. A smaller volume is padded with zeros.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass; the last pass of a row of windows may have one more.
        axis: The axis to stream along, 0 to 2. It comes first in a slab, before the other two in their order.
        is_reversed: Whether the rows come from the last to the first.
        is_wanted: Whether a window is computed, given its first voxel, negative where the volume is padded, and the
            crop; the output of another one is 1 in the first channel and 0 in the others. None for all windows.
        style: How the windows are weighted and padded.
    """
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    margin = [(n - m) // 2 for n, m in zip(size, shape, strict=True)]
    starts = [_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True)]
    height, depth = size[axis], crop[axis]
    plane = [n for n in range(3) if n != axis]
    first_row = height - shape[axis] - margin[axis] if is_reversed else margin[axis]
    last_row = first_row + shape[axis]
    weight = network.to_device(_gaussian_weights(crop) if style.is_gaussian else np.ones(crop, np.float32))
    tops = sorted(height - depth - start if is_reversed else start for start in starts[axis])
    box = [slice(margin[n], margin[n] + shape[n]) for n in plane]
    sums: DeviceArray = None
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        starts[axis] = [height - depth - top if is_reversed else top]
        wanted, skipped = _split_windows([(a, b, c) for a, b, c in product(*starts)], margin, crop, is_wanted)
        for corners in split_batches(wanted or skipped[: sums is None], batch_size):
            outputs = network(_extract_windows(x, corners, crop, margin, style))
            if sums is None:
                sums = network.zeros((outputs.shape[1] + 1, depth, *(size[n] for n in plane)))
            if not wanted:
                break  # the outputs of a skipped window give only the number of channels
            outputs *= weight
            for corner, output in zip(corners, outputs, strict=True):
                target = sums[(..., *(slice(corner[n], corner[n] + crop[n]) for n in plane))]
                target[:-1] += _move_first(output, axis)
                target[-1] += _move_first(weight[None], axis)[0]
        for corner in skipped:
            target = sums[(..., *(slice(corner[n], corner[n] + crop[n]) for n in plane))]
            for channel in (0, -1):
                target[channel] += _move_first(weight[None], axis)[0]
        release_pages(x)
        for row in range(max(first_row - top, 0), min(last_row, below) - top, ROWS_PER_SLAB):
            end = min(row + ROWS_PER_SLAB, min(last_row, below) - top)
            rows = slice(depth - end, depth - row) if is_reversed else slice(row, end)
            slab = network.to_host(sums[(slice(None, -1), rows, *box)] / sums[(slice(-1, None), rows, *box)])
            yield np.ascontiguousarray(slab[:, ::-1]) if is_reversed else slab
        _drop_rows(sums, below - top, is_reversed)


def _split_windows(
    corners: list[Size], margin: list[int], crop: Size, is_wanted: Callable[[Size, Size], bool] | None
) -> tuple[list[Size], list[Size]]:
    """Returns the windows that are computed, and the others."""
    if is_wanted is None:
        return corners, []
    i, j, k = margin
    parts: dict[bool, list[Size]] = {True: [], False: []}
    for a, b, c in corners:
        parts[is_wanted((a - i, b - j, c - k), crop)].append((a, b, c))
    return parts[True], parts[False]


def _move_first(output: DeviceArray, axis: int) -> DeviceArray:
    """Returns an array of shape "n i j k" with one of its last three axes, 0 to 2, before the other two."""
    for n in range(axis, 0, -1):
        output = output.swapaxes(n, n + 1)
    return output


def split_batches(corners: list[Size], batch_size: int) -> list[list[Size]]:
    """Splits windows into batches; a last window that would be alone joins the batch before it.

    On a CPU, torch has no fast convolution for a batch of one small window: it costs seven times as much per window.
    """
    batches = [corners[start : start + batch_size] for start in range(0, len(corners), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        return [*batches[:-2], batches[-2] + batches[-1]]
    return batches


def _drop_rows(sums: DeviceArray, count: int, is_reversed: bool) -> None:
    """Drops the first rows, or the last ones if reversed, and appends zeros; class by class, to need no second buffer.

    Args:
        sums: An array of shape "n p q r".
        count: The number of rows.
        is_reversed: Whether the last rows are dropped.
    """
    source, target, end = slice(count, None), slice(None, -count), slice(-count, None)
    if is_reversed:
        source, target, end = target, source, slice(None, count)
    for rows in sums:
        rows[target] = rows[source] * 1  # a copy, since the rows overlap
        rows[end] = 0


def iterate_windows(
    x: Float[np.ndarray, "c i j k"], crop: Size, overlap: float, batch_size: int
) -> Iterator[tuple[list[Size], Float32[np.ndarray, "b c p q r"]]]:
    """Yields batches of the same windows, with the first voxel of each; it is negative where the volume is padded."""
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    i, j, k = ((n - m) // 2 for n, m in zip(size, shape, strict=True))
    i_starts, j_starts, k_starts = (_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    for batch in split_batches(list(product(i_starts, j_starts, k_starts)), batch_size):
        yield [(a - i, b - j, c - k) for a, b, c in batch], _extract_windows(x, batch, crop, [i, j, k])


def _spatial_size(x: np.ndarray) -> Size:
    i, j, k = x.shape[-3:]
    return i, j, k


def _elementwise_max(a: Size, b: Size) -> Size:
    i, j, k = (max(n, m) for n, m in zip(a, b, strict=True))
    return i, j, k


def _window_starts(length: int, crop: int, overlap: float) -> list[int]:
    """Returns evenly spaced window starts; the last window is moved back to end with the volume."""
    step = max(1, int(crop * (1 - overlap)))
    return [*range(0, length - crop, step), length - crop]


def _gaussian_weights(crop: Size) -> Float32[np.ndarray, "i j k"]:
    """Returns a Gaussian with a standard deviation of one eighth of the crop, at least 0.001 everywhere."""
    i, j, k = (np.exp(-0.5 * ((np.arange(n, dtype=np.float32) - (n - 1) / 2) / (n / 8)) ** 2) for n in crop)
    return np.maximum(np.einsum("i,j,k->ijk", i, j, k), np.float32(1e-3))


def _extract_windows(
    x: Float[np.ndarray, "c i j k"], corners: list[Size], crop: Size, margin: list[int], style: WindowStyle = GAUSSIAN
) -> Float32[np.ndarray, "b c p q r"]:
    """Copies the windows at `corners`; an axis shorter than the crop has one window, which is padded."""
    windows = np.stack([x[_window_slices(corner, crop)] for corner in corners]).astype(np.float32, copy=False)
    pads = [(lo, c - lo - n) for lo, c, n in zip(margin, crop, _spatial_size(windows), strict=True)]
    if not any(map(any, pads)):
        return windows
    return np.pad(windows, [(0, 0), (0, 0), *pads], mode="edge" if style.repeats_edge else "constant")


def _window_slices(corner: Size, crop: Size) -> tuple[slice, ...]:
    return slice(None), *(slice(start, start + n) for start, n in zip(corner, crop, strict=True))

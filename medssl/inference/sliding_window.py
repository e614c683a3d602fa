"""Sliding-window inference on volumes of any size, with memory bounded by the depth of one crop."""

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medssl.errors import BadInput, InputWarning

Size = tuple[int, int, int]
Network = Callable[[Float[Tensor, "b c i j k"]], Float[Tensor, "b n i j k"]]
T = TypeVar("T", Tensor, list[Any])
ROWS_PER_SLAB = 8
MAX_DOUBLED_VOXELS = 64**3  # a window of 48^3 alone costs 7.4 times as much as in a batch; one of 96^3 as much


def sliding_window_inference(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"],
    network: Network,
    crop: Size,
    overlap: float = 0.5,
    batch_size: int = 4,
    device: str = "cpu",
) -> Float[Tensor, "n i j k"]:
    """Returns the Gaussian-weighted mean of a network's output over all windows that cover a voxel.

    Args:
        x: The volume.
        network: The network to apply.
        crop: The size of the windows in voxels. A smaller volume is padded with zeros.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
        device: The torch device of the network.
    """
    return torch.cat([slab.cpu() for slab in stream_slabs(x, network, crop, overlap, batch_size, device)], dim=1)


def stream_slabs(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"],
    network: Network,
    crop: Size,
    overlap: float = 0.5,
    batch_size: int = 4,
    device: str = "cpu",
    axis: int = 0,
    is_reversed: bool = False,
) -> Iterator[Float[Tensor, "n p q r"]]:
    """Yields the result of `sliding_window_inference` in slabs along an axis, as soon as no later window covers them.

    Weights, window positions and padding equal those of MONAI's `sliding_window_inference` in its Gaussian mode. The
    32-bit sums span one crop along the axis, never the whole volume.

    Args:
        x: The volume.
        network: The network to apply.
        crop: The size of the windows in voxels. A smaller volume is padded with zeros.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass; the last pass of a row of windows may have one more.
        device: The torch device of the network.
        axis: The axis to stream along, 0 to 2. It comes first in a slab, before the other two in their order.
        is_reversed: Whether the rows come from the last to the first.
    """
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    margin = [(n - m) // 2 for n, m in zip(size, shape, strict=True)]
    starts = [_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True)]
    order = [axis, *(n for n in range(3) if n != axis)]
    height, *plane = (size[n] for n in order)
    first_row = size[axis] - shape[axis] - margin[axis] if is_reversed else margin[axis]
    last_row = first_row + shape[axis]
    q, r = (slice(margin[n], margin[n] + shape[n]) for n in order[1:])
    weight = _gaussian_weights(crop).to(device).movedim(axis, 0)  # the same when reversed
    tops = sorted(height - crop[axis] - start if is_reversed else start for start in starts[axis])
    sums = torch.zeros(0)
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        starts[axis] = [height - crop[axis] - top if is_reversed else top]
        for corners in split_batches([(a, b, c) for a, b, c in product(*starts)], batch_size):
            outputs = apply_network(network, _extract_windows(x, corners, crop, margin).to(device)).float()
            if not sums.numel():
                sums = torch.zeros(outputs.shape[1] + 1, crop[axis], *plane, device=device)
            for corner, output in zip(corners, outputs, strict=True):
                window = output.movedim(axis + 1, 1)
                place = [slice(corner[n], corner[n] + crop[n]) for n in order[1:]]
                target = sums[:, :, place[0], place[1]]
                target[:-1].addcmul_(window.flip(1) if is_reversed else window, weight)
                target[-1] += weight
        for row in range(max(first_row - top, 0), min(last_row, below) - top, ROWS_PER_SLAB):
            slab = sums[:, row : min(row + ROWS_PER_SLAB, min(last_row, below) - top), q, r]
            yield slab[:-1] / slab[-1:]
        _shift_rows(sums, below - top)


def split_batches(corners: list[Size], batch_size: int) -> list[list[Size]]:
    """Splits windows into batches; a last window that would be alone joins the batch before it.

    On a CPU, torch has no fast convolution for a batch of one small window: it costs seven times as much per window.
    """
    batches = [corners[start : start + batch_size] for start in range(0, len(corners), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        return [*batches[:-2], batches[-2] + batches[-1]]
    return batches


def apply_network(network: Callable[[Tensor], T], windows: Float[Tensor, "b c i j k"]) -> T:
    """Applies a network without gradients; a single small window on a CPU is doubled, which costs less than one.

    If the memory of the device does not suffice, the batch is halved, with a warning.

    Args:
        network: Maps windows to a tensor or a list with one entry for each.
        windows: The windows, on the device of the network.

    Raises:
        BadInput: The memory does not suffice for a single window.
    """
    is_slow = len(windows) == 1 and windows.device.type == "cpu" and windows[0, 0].numel() <= MAX_DOUBLED_VOXELS
    try:
        with torch.no_grad():
            return network(torch.cat([windows, windows]))[:1] if is_slow else network(windows)
    except torch.OutOfMemoryError:
        pass  # outside of the handler, the failed pass holds no memory
    if len(windows) == 1:
        size = "x".join(map(str, windows.shape[2:]))
        raise BadInput(f"memory of {windows.device}: too small for one window of {size} voxels; predict on the CPU")
    message = f"memory of {windows.device}: too small for {len(windows)} windows; the batch is halved"
    warnings.warn(message, InputWarning, stacklevel=2)
    middle = len(windows) // 2
    first, second = apply_network(network, windows[:middle]), apply_network(network, windows[middle:])
    return torch.cat([first, second]) if isinstance(first, Tensor) else first + second


def _shift_rows(sums: Float[Tensor, "n p j k"], count: int) -> None:
    """Drops the first rows and appends as many of zeros, class by class, to need no second buffer."""
    for rows in sums:
        rows[: len(rows) - count] = rows[count:].clone()
        rows[len(rows) - count :] = 0


def iterate_windows(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"], crop: Size, overlap: float, batch_size: int
) -> Iterator[tuple[list[Size], Float[Tensor, "b c p q r"]]]:
    """Yields batches of the same windows, with the first voxel of each; it is negative where the volume is padded."""
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    i, j, k = ((n - m) // 2 for n, m in zip(size, shape, strict=True))
    i_starts, j_starts, k_starts = (_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    for batch in split_batches(list(product(i_starts, j_starts, k_starts)), batch_size):
        yield [(a - i, b - j, c - k) for a, b, c in batch], _extract_windows(x, batch, crop, [i, j, k])


def _spatial_size(x: np.ndarray | Tensor) -> Size:
    i, j, k = x.shape[-3:]
    return i, j, k


def _elementwise_max(a: Size, b: Size) -> Size:
    i, j, k = (max(n, m) for n, m in zip(a, b, strict=True))
    return i, j, k


def _window_starts(length: int, crop: int, overlap: float) -> list[int]:
    """Returns evenly spaced window starts; the last window is moved back to end with the volume."""
    step = max(1, int(crop * (1 - overlap)))
    return [*range(0, length - crop, step), length - crop]


def _gaussian_weights(crop: Size) -> Float[Tensor, "i j k"]:
    """Returns a Gaussian with a standard deviation of one eighth of the crop, at least 0.001 everywhere."""
    factors = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in crop]
    return torch.einsum("i,j,k->ijk", *factors).clamp(min=1e-3)


def _extract_windows(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"], corners: list[Size], crop: Size, margin: list[int]
) -> Float[Tensor, "b c p q r"]:
    """Copies the windows at `corners`; an axis shorter than the crop has one window, padded with zeros."""
    windows = [
        torch.as_tensor(np.array(window) if isinstance(window, np.ndarray) else window)
        for window in (x[_window_slices(corner, crop)] for corner in corners)
    ]
    stacked = torch.stack(windows).detach().float()
    pads = [(lo, c - lo - n) for lo, c, n in zip(margin, crop, _spatial_size(stacked), strict=True)]
    return functional.pad(stacked, [side for pair in reversed(pads) for side in pair])


def _window_slices(corner: Size, crop: Size) -> tuple[slice, ...]:
    return slice(None), *(slice(start, start + n) for start, n in zip(corner, crop, strict=True))

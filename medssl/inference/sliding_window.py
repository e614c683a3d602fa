"""Sliding-window inference on volumes of any size, with memory bounded by the depth of one crop."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int, int]
Network = Callable[[Float[Tensor, "b c i j k"]], Float[Tensor, "b n i j k"]]


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
) -> Iterator[Float[Tensor, "n p j k"]]:
    """Yields the result of `sliding_window_inference` in slabs along i, each as soon as no later window covers it.

    Weights, window positions and padding equal those of MONAI's `sliding_window_inference` in its Gaussian mode. The
    32-bit sums span one crop along i, never the whole volume.
    """
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    margin = [(n - m) // 2 for n, m in zip(size, shape, strict=True)]
    i, j, k = (slice(lo, lo + n) for lo, n in zip(margin, shape, strict=True))
    i_starts, j_starts, k_starts = (_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    weight = _gaussian_weights(crop).to(device)
    sums = torch.zeros(0)
    for top, below in zip(i_starts, [*i_starts[1:], size[0]], strict=True):
        corners = [(top, j0, k0) for j0 in j_starts for k0 in k_starts]
        for start in range(0, len(corners), batch_size):
            batch = corners[start : start + batch_size]
            with torch.no_grad():
                outputs = network(_extract_windows(x, batch, crop, margin).to(device)).float()
            if not sums.numel():
                sums = torch.zeros(outputs.shape[1] + 1, crop[0], *size[1:], device=device)
            for corner, output in zip(batch, outputs, strict=True):
                sums[_window_slices((0, *corner[1:]), crop)] += torch.cat([output * weight, weight[None]])
        slab = sums[:, max(i.start - top, 0) : max(min(i.stop, below) - top, 0), j, k]
        if slab.numel():
            yield slab[:-1] / slab[-1:]
        sums = functional.pad(sums[:, below - top :], (0, 0, 0, 0, 0, below - top))


def iterate_windows(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"], crop: Size, overlap: float, batch_size: int
) -> Iterator[tuple[list[Size], Float[Tensor, "b c p q r"]]]:
    """Yields batches of the same windows, with the first voxel of each; it is negative where the volume is padded."""
    shape = _spatial_size(x)
    size = _elementwise_max(shape, crop)
    i, j, k = ((n - m) // 2 for n, m in zip(size, shape, strict=True))
    i_starts, j_starts, k_starts = (_window_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    corners = list(product(i_starts, j_starts, k_starts))
    for start in range(0, len(corners), batch_size):
        batch = corners[start : start + batch_size]
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

"""A sliding window over a volume of any size, in memory that one crop's depth bounds."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int, int]
Network = Callable[[Float[Tensor, "b c i j k"]], Float[Tensor, "b n i j k"]]


def slide(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"],
    network: Network,
    crop: Size,
    overlap: float = 0.5,
    batch: int = 4,
    device: str = "cpu",
) -> Float[Tensor, "n i j k"]:
    """What a network says of every voxel: the Gaussian-weighted mean of the windows that see it."""
    return torch.cat([slab.cpu() for slab in slabs(x, network, crop, overlap, batch, device)], dim=1)


def slabs(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"],
    network: Network,
    crop: Size,
    overlap: float = 0.5,
    batch: int = 4,
    device: str = "cpu",
) -> Iterator[Float[Tensor, "n p j k"]]:
    """The same from the first row of axis i to the last, each slab as soon as no later window sees it.

    Weights, window positions and padding are those of MONAI's `sliding_window_inference` in its Gaussian mode. The
    32-bit sums span one crop along i, never the volume. A volume smaller than the crop is padded with zeros.
    """
    shape = _size(x)
    size = _larger(shape, crop)
    margin = [(n - m) // 2 for n, m in zip(size, shape, strict=True)]
    i, j, k = (slice(lo, lo + n) for lo, n in zip(margin, shape, strict=True))
    tops, lefts, fronts = (_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    weight = _gaussian(crop).to(device)
    sums = torch.zeros(0)
    for top, below in zip(tops, [*tops[1:], size[0]], strict=True):
        corners = [(top, left, front) for left in lefts for front in fronts]
        for at in range(0, len(corners), batch):
            windows = _windows(x, corners[at : at + batch], crop, margin).to(device)
            with torch.no_grad():
                said = network(windows).float()
            if not sums.numel():
                sums = torch.zeros(said.shape[1] + 1, crop[0], *size[1:], device=device)
            for corner, one in zip(corners[at : at + batch], said, strict=True):
                sums[_box((0, *corner[1:]), crop)] += torch.cat([one * weight, weight[None]])
        ready = sums[:, max(i.start - top, 0) : max(min(i.stop, below) - top, 0), j, k]
        if ready.numel():
            yield ready[:-1] / ready[-1:]
        sums = functional.pad(sums[:, below - top :], (0, 0, 0, 0, 0, below - top))


def windows(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"], crop: Size, overlap: float, batch: int
) -> Iterator[tuple[list[Size], Float[Tensor, "b c p q r"]]]:
    """The same windows, some at a time, with the voxel each begins at: below 0 where the volume had to be padded."""
    shape = _size(x)
    size = _larger(shape, crop)
    i, j, k = ((n - m) // 2 for n, m in zip(size, shape, strict=True))
    tops, lefts, fronts = (_starts(n, c, overlap) for n, c in zip(size, crop, strict=True))
    corners = list(product(tops, lefts, fronts))
    for at in range(0, len(corners), batch):
        some = corners[at : at + batch]
        yield [(a - i, b - j, c - k) for a, b, c in some], _windows(x, some, crop, [i, j, k])


def _size(x: np.ndarray | Tensor) -> Size:
    i, j, k = x.shape[-3:]
    return i, j, k


def _larger(a: Size, b: Size) -> Size:
    i, j, k = (max(n, m) for n, m in zip(a, b, strict=True))
    return i, j, k


def _starts(length: int, crop: int, overlap: float) -> list[int]:
    """Where windows begin: evenly stepped, the last one moved back to end with the volume."""
    step = max(1, int(crop * (1 - overlap)))
    return [*range(0, length - crop, step), length - crop]


def _gaussian(crop: Size) -> Float[Tensor, "i j k"]:
    """A bell with a standard deviation of an eighth of the crop, nowhere below a thousandth."""
    bells = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in crop]
    return torch.einsum("i,j,k->ijk", *bells).clamp(min=1e-3)


def _windows(
    x: Float[np.ndarray, "c i j k"] | Float[Tensor, "c i j k"], corners: list[Size], crop: Size, margin: list[int]
) -> Float[Tensor, "b c p q r"]:
    """Copies of the windows at `corners`; an axis shorter than the crop has one window, padded with zeros."""
    cut = [
        torch.as_tensor(np.array(w) if isinstance(w, np.ndarray) else w) for w in (x[_box(c, crop)] for c in corners)
    ]
    stacked = torch.stack(cut).detach().float()
    pads = [(lo, c - lo - n) for lo, c, n in zip(margin, crop, _size(stacked), strict=True)]
    return functional.pad(stacked, [side for pair in reversed(pads) for side in pair])


def _box(corner: Size, crop: Size) -> tuple[slice, ...]:
    return slice(None), *(slice(start, start + n) for start, n in zip(corner, crop, strict=True))

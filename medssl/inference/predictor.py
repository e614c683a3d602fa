"""Predictor: a volume in, labels, probability and findings on its own grid out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medssl.finding import Finding
from medssl.inference.connected_findings import find
from medssl.inference.sliding_window import Network, Size, slabs
from medssl.volume import Volume

ROWS = 64
LEAST = 1e-7  # of a probability, for its logarithm to be finite


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels and the probability of not being background, on the grid of the image, and what was found.

    `uncertainty` is there where several looks at the image can disagree.
    """

    labels: Volume
    probability: Volume
    findings: tuple[Finding, ...]
    uncertainty: Volume | None = None


@dataclass(frozen=True)
class Predictor:
    """Applies a network that gives class probabilities, background first; `names` says what its other classes are.

    `prepare` turns a volume from a scanner into what the network was trained on: its orientation, spacing and values.
    """

    network: Network
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = 0.5
    batch: int = 2
    device: str = "cpu"
    smallest_ml: float = 0.0
    temperature: float = 1.0

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Predicts on the working grid, and brings the probabilities back to the volume's own, voxel for voxel."""
        ready = self.prepare(volume)
        return self.finished(volume, case, replace(ready, voxels=self.working(ready), unit="probability"))

    def working(self, ready: Volume) -> Float[np.ndarray, "n i j k"]:
        """Class probabilities of a prepared volume, in 16 bits: their error (2^-12) is far below a network's."""
        stream = (tempered(slab, self.temperature) for slab in self.looked(ready.voxels))
        return torch.cat([slab.to("cpu", torch.float16) for slab in stream], dim=1).numpy()

    def looked(self, voxels: Float[np.ndarray, "*c i j k"]) -> Iterator[Float[Tensor, "n p j k"]]:
        """Class probabilities of prepared voxels as the network gives them, from the first row along i to the last."""
        x = voxels.astype(np.float32, copy=False).reshape(-1, *voxels.shape[-3:])
        return slabs(x, self.network, self.crop, self.overlap, self.batch, self.device)

    def finished(
        self, volume: Volume, case: str, probability: Volume, disagreement: Volume | None = None
    ) -> Prediction:
        """Class probabilities on the working grid, and how far looks disagree there, as a prediction on the volume's.

        A finding's uncertainty is the mean disagreement in it, or without any the mean entropy.
        """
        labels, foreground, best, entropy = _decided(probability, volume)
        on_grid = replace(volume, voxels=labels, unit="label")
        apart = disagreement and replace(volume, voxels=_brought(disagreement, volume).clip(0, 1), unit="probability")
        found = find(on_grid, best, apart.voxels if apart else entropy, case, self.names, self.smallest_ml)
        return Prediction(on_grid, replace(volume, voxels=foreground, unit="probability"), found, apart)


def tempered(probability: Float[Tensor, "n *i"], temperature: float) -> Float[Tensor, "n *i"]:
    """The probabilities that logits divided by `temperature` would have given; those given, at a temperature of 1."""
    if temperature == 1:
        return probability
    return (probability.float().clamp(min=LEAST).log() / temperature).softmax(0)


def _decided(
    probability: Volume, grid: Volume
) -> tuple[
    UInt8[np.ndarray, "i j k"], Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"]
]:
    """On another grid: the likeliest class, the probability of any but the background, the class's own, the entropy.

    Some rows and one class at a time, so that the full grid is never held once per class.
    """
    labels = np.zeros(grid.shape, np.uint8)
    foreground, best, entropy = (np.zeros(grid.shape, np.float32) for _ in range(3))
    for at, rows in _rows(grid):
        for n, voxels in enumerate(probability.voxels):
            p = replace(probability, voxels=voxels).resample_to(rows, order=1, fill=None).voxels.astype(np.float32)
            entropy[at] -= p * np.log(np.maximum(p, 1e-9))
            foreground[at] += p if n else 0
            labels[at][p > best[at]] = n
            np.maximum(best[at], p, out=best[at])
    return labels, foreground.clip(0, 1), best, entropy / np.float32(np.log(len(probability.voxels)))


def _brought(volume: Volume, grid: Volume) -> Float[np.ndarray, "i j k"]:
    """One value a voxel on another grid, some rows at a time."""
    parts = [volume.resample_to(rows, order=1, fill=None).voxels.astype(np.float32) for _, rows in _rows(grid)]
    return np.concatenate(parts)


def _rows(grid: Volume) -> Iterator[tuple[slice, Volume]]:
    """The grid some rows along i after the other, without voxels."""
    for top in range(0, grid.shape[0], ROWS):
        shift = np.eye(4)
        shift[0, 3] = top
        count = min(ROWS, grid.shape[0] - top)
        blank = np.broadcast_to(np.uint8(0), (count, *grid.shape[1:]))
        yield slice(top, top + count), replace(grid, voxels=blank, affine=grid.affine @ shift)

"""Predictor: a volume in, labels, probability and findings on its own grid out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from medssl.predict.findings import find
from medssl.predict.sliding import Network, Size, slabs
from medssl.review.finding import Finding
from medssl.volume import Volume

ROWS = 64


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels and the probability of not being background, on the grid of the image, and what was found."""

    labels: Volume
    probability: Volume
    findings: tuple[Finding, ...]


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

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Predicts on the working grid, and brings the probabilities back to the volume's own, voxel for voxel."""
        ready = self.prepare(volume)
        probability = Volume(self._probability(ready), ready.affine, "probability")
        labels, foreground, best, entropy = _decided(probability, volume)
        on_grid = replace(volume, voxels=labels, unit="label")
        found = find(on_grid, best, entropy, case, self.names, self.smallest_ml)
        return Prediction(on_grid, replace(volume, voxels=foreground, unit="probability"), found)

    def _probability(self, ready: Volume) -> Float[np.ndarray, "n i j k"]:
        """Class probabilities, kept in 16 bits: their error (2^-12) is far below a network's."""
        voxels = ready.voxels.astype(np.float32, copy=False).reshape(-1, *ready.shape)
        stream = slabs(voxels, self.network, self.crop, self.overlap, self.batch, self.device)
        return torch.cat([slab.to("cpu", torch.float16) for slab in stream], dim=1).numpy()


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
    for top in range(0, grid.shape[0], ROWS):
        at = slice(top, top + ROWS)
        rows = _rows(grid, top, labels[at].shape[0])
        for n, voxels in enumerate(probability.voxels):
            p = replace(probability, voxels=voxels).onto(rows, order=1, fill=None).voxels.astype(np.float32)
            entropy[at] -= p * np.log(np.maximum(p, 1e-9))
            foreground[at] += p if n else 0
            labels[at][p > best[at]] = n
            np.maximum(best[at], p, out=best[at])
    return labels, foreground.clip(0, 1), best, entropy / np.float32(np.log(len(probability.voxels)))


def _rows(grid: Volume, top: int, count: int) -> Volume:
    """The grid of some rows along i, without voxels."""
    shift = np.eye(4)
    shift[0, 3] = top
    return replace(grid, voxels=np.broadcast_to(np.uint8(0), (count, *grid.shape[1:])), affine=grid.affine @ shift)

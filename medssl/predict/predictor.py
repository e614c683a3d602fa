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
        labels, best, background, entropy = _decided(probability, volume)
        on_grid = replace(volume, voxels=labels, unit="label")
        found = find(on_grid, best, entropy, case, self.names, self.smallest_ml)
        return Prediction(on_grid, replace(volume, voxels=1 - background, unit="probability"), found)

    def _probability(self, ready: Volume) -> Float[np.ndarray, "n i j k"]:
        """Class probabilities, kept in 16 bits: their error (2^-12) is far below a network's."""
        voxels = ready.voxels.astype(np.float32, copy=False).reshape(-1, *ready.shape)
        stream = slabs(voxels, self.network, self.crop, self.overlap, self.batch, self.device)
        return torch.cat([slab.to("cpu", torch.float16) for slab in stream], dim=1).numpy()


def _decided(
    probability: Volume, grid: Volume
) -> tuple[
    UInt8[np.ndarray, "i j k"],
    Float[np.ndarray, "i j k"],
    Float[np.ndarray, "i j k"],
    Float[np.ndarray, "i j k"],
]:
    """On another grid: the likeliest class, its probability, the background's, and the entropy in [0, 1].

    One class at a time, so that the full grid is never held once per class.
    """
    labels = np.zeros(grid.shape, np.uint8)
    entropy = np.zeros(grid.shape, np.float32)
    best = background = np.zeros(0, np.float32)
    for n, voxels in enumerate(probability.voxels):
        p = replace(probability, voxels=voxels.astype(np.float32)).onto(grid, order=1, fill=None).voxels.clip(0, 1)
        entropy -= p * np.log(np.maximum(p, 1e-9))
        if n == 0:
            best, background = p.copy(), p
        else:
            labels[p > best] = n
            np.maximum(best, p, out=best)
    return labels, best, background, entropy / np.float32(np.log(len(probability.voxels)))

"""Detector: a volume in, lesions out: candidates from voxels and from boxes, drawn on the volume's own grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from scipy import ndimage

from medssl.predict.candidates import Candidate, candidates
from medssl.predict.findings import find
from medssl.predict.predictor import Prediction
from medssl.predict.sliding import Network, Size, slide
from medssl.volume import Volume


@dataclass(frozen=True)
class Detector:
    """Applies networks that give class probabilities, background first; `names` says what the other classes are.

    A candidate's probability may be far below 1/2: its score says how sure it is, and which scores count is decided
    by whoever reads them. `calibrate` turns what networks say into the score of a finding.
    """

    networks: tuple[Network, ...]
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = 0.5
    batch: int = 2
    device: str = "cpu"
    least: float = 0.05
    calibrate: Callable[[float], float] = float

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Searches on the working grid, and draws what was found on the volume's own."""
        ready = self.prepare(volume)
        probability = self.probability(ready.voxels.reshape(-1, *ready.shape))
        found = self.candidates(probability)
        foreground = Volume(1 - probability[0], ready.affine, "probability").onto(volume, order=1, fill=None)
        drawn = self._drawn(found, ready, volume)
        scores = np.array([0.0, *(self.calibrate(one.score) for one in found)], np.float32)
        labels = replace(volume, voxels=np.array([0, *(one.label for one in found)], np.uint8)[drawn], unit="label")
        findings = find(labels, scores[drawn], doubt(foreground.voxels), case, self.names)
        return Prediction(labels, replace(foreground, voxels=foreground.voxels.clip(0, 1)), findings)

    def probability(self, x: Float[np.ndarray, "c i j k"]) -> Float32[np.ndarray, "n i j k"]:
        """The mean over the networks of the class probabilities of a prepared volume."""
        x = x.astype(np.float32, copy=False)
        said = (slide(x, one, self.crop, self.overlap, self.batch, self.device) for one in self.networks)
        return torch.stack(list(said)).mean(0).numpy()

    def candidates(self, probability: Float32[np.ndarray, "n i j k"]) -> list[Candidate]:
        """Of every class, the surest first."""
        found = [one for label in self.names for one in candidates(probability[label], label, self.least)]
        return sorted(found, key=lambda one: -one.score)

    def _drawn(self, found: Sequence[Candidate], ready: Volume, grid: Volume) -> Int32[np.ndarray, "i j k"]:
        """The candidates' numbers, from 1, on another grid; one that falls between its slices keeps a voxel."""
        drawn = replace(ready, voxels=numbered(found, ready.shape), unit="label").onto(grid, order=0).voxels
        for number in set(range(1, len(found) + 1)) - set(np.unique(drawn).tolist()):
            middle = ready.to_mm(found[number - 1].voxels.mean(0)[None])
            at = np.rint(grid.to_index(middle)[0]).astype(int).clip(0, np.array(grid.shape) - 1)
            if drawn[tuple(at)] == 0:
                drawn[tuple(at)] = number
        return drawn


def numbered(found: Sequence[Candidate], shape: Size) -> Int32[np.ndarray, "i j k"]:
    """Candidates drawn as numbers from 1; of one that touches an earlier one, only what stands apart is drawn."""
    drawn = np.zeros(shape, np.int32)
    for number, one in enumerate(found, 1):
        low, high = one.voxels.min(0), one.voxels.max(0)
        first = (low - 1).clip(0)
        near = drawn[tuple(map(slice, first, high + 2))]
        free = ndimage.maximum_filter(near, 3)[tuple((one.voxels - first).T)] == 0
        drawn[tuple(one.voxels[free].T)] = number
    return drawn


def doubt(p: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
    """The entropy of a probability, in shares of its largest."""
    p = p.clip(1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

"""Predicts class probabilities of a volume, and returns labels and findings on its original grid."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medssl.finding import Finding
from medssl.inference.connected_findings import extract_findings
from medssl.inference.sliding_window import Network, Size, stream_slabs
from medssl.volume import Volume

ROWS_PER_BLOCK = 64
MIN_PROBABILITY = 1e-7  # keeps logarithms of probabilities finite


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of one case on the grid of its image.

    Args:
        labels: The predicted class of each voxel.
        probability: The probability of each voxel of not being background.
        findings: The findings.
        uncertainty: The disagreement of several predictions of each voxel, if there were several.
    """

    labels: Volume
    probability: Volume
    findings: tuple[Finding, ...]
    uncertainty: Volume | None = None


@dataclass(frozen=True)
class Predictor:
    """Applies a segmentation network to scans.

    Args:
        network: A network that outputs class probabilities, background first.
        prepare: Converts a scan to network input: orientation, spacing and values.
        crop: The size of the sliding window in voxels.
        names: The class names by label value, without background.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
        device: The torch device that predicts.
        min_volume_ml: Findings below this volume are left out.
        temperature: The divisor of the logits; 1 leaves them unchanged.
        organs: The label values of organs, each of which is one finding.
    """

    network: Network
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = 0.5
    batch_size: int = 2
    device: str = "cpu"
    min_volume_ml: float = 0.0
    temperature: float = 1.0
    organs: frozenset[int] = frozenset()

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Returns the prediction for a scan, on its own grid."""
        prepared = self.prepare(volume)
        probability = replace(prepared, voxels=self.predict_prepared(prepared), unit="probability")
        return self.to_original_grid(volume, case, probability)

    def predict_prepared(self, prepared: Volume) -> Float[np.ndarray, "n i j k"]:
        """Returns class probabilities of a prepared volume, in 16 bits: their error, 2^-12, is negligible."""
        slabs = (apply_temperature(slab, self.temperature) for slab in self.stream_probabilities(prepared.voxels))
        return torch.cat([slab.to("cpu", torch.float16) for slab in slabs], dim=1).numpy()

    def stream_probabilities(self, voxels: Float[np.ndarray, "*c i j k"]) -> Iterator[Float[Tensor, "n p j k"]]:
        """Yields raw class probabilities of prepared voxels in slabs, from the first row along i to the last."""
        x = voxels.astype(np.float32, copy=False).reshape(-1, *voxels.shape[-3:])
        return stream_slabs(x, self.network, self.crop, self.overlap, self.batch_size, self.device)

    def to_original_grid(
        self, volume: Volume, case: str, probability: Volume, disagreement: Volume | None = None
    ) -> Prediction:
        """Resamples class probabilities to the grid of a scan, and extracts labels and findings.

        The uncertainty of a finding is its mean disagreement or, without one, its mean entropy.

        Args:
            volume: The scan.
            case: The id of the case.
            probability: The class probabilities on the working grid.
            disagreement: The disagreement of several predictions on the working grid.
        """
        class_map, foreground, confidence, entropy = _classify_voxels(probability, volume)
        labels = replace(volume, voxels=class_map, unit="label")
        uncertainty = disagreement and replace(
            volume, voxels=_resample_in_blocks(disagreement, volume).clip(0, 1), unit="probability"
        )
        doubt = uncertainty.voxels if uncertainty else entropy
        findings = extract_findings(labels, confidence, doubt, case, self.names, self.min_volume_ml, self.organs)
        return Prediction(labels, replace(volume, voxels=foreground, unit="probability"), findings, uncertainty)


def apply_temperature(probability: Float[Tensor, "n *i"], temperature: float) -> Float[Tensor, "n *i"]:
    """Returns the probabilities after division of the logits by `temperature`; at 1, the same tensor."""
    if temperature == 1:
        return probability
    return (probability.float().clamp(min=MIN_PROBABILITY).log() / temperature).softmax(0)


def _classify_voxels(
    probability: Volume, grid: Volume
) -> tuple[
    UInt8[np.ndarray, "i j k"], Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"]
]:
    """Resamples class probabilities to a grid: best class, foreground probability, best probability and entropy.

    It processes blocks of rows and one class at a time, to avoid holding the full grid once per class. The entropy is a
    fraction of its maximum.
    """
    labels = np.zeros(grid.shape, np.uint8)
    foreground, best, entropy = (np.zeros(grid.shape, np.float32) for _ in range(3))
    for rows, block in _iterate_row_blocks(grid):
        for n, voxels in enumerate(probability.voxels):
            p = replace(probability, voxels=voxels).resample_to(block, order=1, fill=None).voxels.astype(np.float32)
            entropy[rows] -= p * np.log(np.maximum(p, 1e-9))
            foreground[rows] += p if n else 0
            labels[rows][p > best[rows]] = n
            np.maximum(best[rows], p, out=best[rows])
    return labels, foreground.clip(0, 1), best, entropy / np.float32(np.log(len(probability.voxels)))


def _resample_in_blocks(volume: Volume, grid: Volume) -> Float[np.ndarray, "i j k"]:
    """Resamples a volume to a grid, in blocks of rows to save memory."""
    parts = [
        volume.resample_to(block, order=1, fill=None).voxels.astype(np.float32)
        for _, block in _iterate_row_blocks(grid)
    ]
    return np.concatenate(parts)


def _iterate_row_blocks(grid: Volume) -> Iterator[tuple[slice, Volume]]:
    """Yields blocks of rows along i, each as a slice and as an empty volume with its affine."""
    for top in range(0, grid.shape[0], ROWS_PER_BLOCK):
        shift = np.eye(4)
        shift[0, 3] = top
        count = min(ROWS_PER_BLOCK, grid.shape[0] - top)
        blank = np.broadcast_to(np.uint8(0), (count, *grid.shape[1:]))
        yield slice(top, top + count), replace(grid, voxels=blank, affine=grid.affine @ shift)

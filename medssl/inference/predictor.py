"""Predicts class probabilities of a volume, and returns labels and findings on its original grid."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import softmax

from medssl.inference.sliding_window import GAUSSIAN, OVERLAP, Network, Size, WindowStyle, stream_slabs
from medssl.inference.streaming.body_windows import BodyWindows
from medssl.inference.streaming.case_stream import CaseStream, Prediction, Slab, collect_prediction
from medssl.inference.streaming.grid_map import GridMap
from medssl.volume import Volume

MIN_PROBABILITY = 1e-7  # keeps logarithms of probabilities finite


@dataclass(frozen=True)
class Predictor:
    """Applies a segmentation network to scans.

    Args:
        network: A network that outputs class probabilities, background first, or what `activate` turns into them.
        prepare: Converts a scan to network input: orientation, spacing and values.
        crop: The size of the sliding window in voxels.
        names: The class names by label value, without background.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
        min_volume_ml: Findings below this volume are left out.
        temperature: The divisor of the logits; 1 leaves them unchanged.
        organs: The label values of organs, each of which is one finding.
        crop_body_mm: Windows farther from the body are background and not computed; None computes all.
        activate: Maps the mean outputs over windows to class probabilities; None if they are such already.
        window_style: How windows are weighted and padded.
        is_filtered: Whether probabilities are filtered against aliasing where the scan is coarser than the input.
    """

    network: Network
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = OVERLAP
    batch_size: int = 2
    min_volume_ml: float = 0.0
    temperature: float = 1.0
    organs: frozenset[int] = frozenset()
    crop_body_mm: float | None = None
    activate: Callable[[Float32[np.ndarray, "n i j k"]], Float32[np.ndarray, "n i j k"]] | None = None
    window_style: WindowStyle = GAUSSIAN
    is_filtered: bool = True

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Returns the prediction for a scan, on its own grid."""
        return collect_prediction(self.stream(volume, case), volume)

    def stream(self, volume: Volume, case: str) -> CaseStream:
        """Returns the prediction for a scan as a stream of blocks.

        The uncertainty of a finding is its mean entropy, interpolated from the working grid.
        """
        prepared = self.prepare(volume)
        grid_map = GridMap.between(prepared, volume, self.is_filtered)
        return self.stream_to_grid(
            volume, case, grid_map, self._iterate_slabs(prepared, grid_map, self.find_body(volume, prepared))
        )

    def find_body(self, volume: Volume, prepared: Volume) -> BodyWindows | None:
        """Returns which windows of a prepared scan are computed; None for all."""
        return None if self.crop_body_mm is None else BodyWindows.find(volume, prepared, self.crop_body_mm)

    def stream_to_grid(
        self, volume: Volume, case: str, grid_map: GridMap, slabs: Iterator[Slab], has_uncertainty: bool = False
    ) -> CaseStream:
        """Returns class probabilities on the working grid as the prediction for a scan.

        Args:
            volume: The scan.
            case: The id of the case.
            grid_map: The map from the working grid to that of the scan.
            slabs: The class probabilities, in the order of the map.
            has_uncertainty: Whether their doubt is the disagreement of several predictions.
        """
        return CaseStream(volume, case, self.names, grid_map, slabs, has_uncertainty, self.min_volume_ml, self.organs)

    def stream_probabilities(
        self,
        voxels: Float[np.ndarray, "*c i j k"],
        axis: int = 0,
        is_reversed: bool = False,
        body: BodyWindows | None = None,
    ) -> Iterator[Float32[np.ndarray, "n p q r"]]:
        """Yields uncalibrated class probabilities of prepared voxels in slabs, as `stream_slabs`.

        Args:
            voxels: The voxels.
            axis: The axis to stream along.
            is_reversed: Whether the rows come from the last to the first.
            body: Which windows are computed; None for all.
        """
        is_wanted = body.contains if body else None
        x = voxels.astype(np.float32, copy=False).reshape(-1, *voxels.shape[-3:])
        slabs = stream_slabs(
            x, self.network, self.crop, self.overlap, self.batch_size, axis, is_reversed, is_wanted, self.window_style
        )
        return map(self.activate, slabs) if self.activate else slabs

    def _iterate_slabs(self, prepared: Volume, grid_map: GridMap, body: BodyWindows | None) -> Iterator[Slab]:
        """Yields calibrated class probabilities and their entropy, in the order of the map."""
        is_swapped = grid_map.order[1] > grid_map.order[2]
        for slab in self.stream_probabilities(prepared.voxels, grid_map.order[0], grid_map.is_reversed, body):
            p = apply_temperature(slab, self.temperature)
            entropy = class_entropy(p) / np.float32(np.log(len(p)))
            if is_swapped:
                p, entropy = p.swapaxes(2, 3), entropy.swapaxes(1, 2)
            yield Slab(p, entropy)


def apply_temperature(probability: Float32[np.ndarray, "n *i"], temperature: float) -> Float32[np.ndarray, "n *i"]:
    """Returns the probabilities after division of the logits by `temperature`; at 1, the same array."""
    if temperature == 1:
        return probability
    logits = np.log(np.maximum(probability, np.float32(MIN_PROBABILITY))) / np.float32(temperature)
    return softmax(logits, axis=0)


def class_entropy(probability: Float32[np.ndarray, "n i j k"]) -> Float32[np.ndarray, "i j k"]:
    """Returns the entropy of the class probabilities of each voxel, in nats."""
    total = np.zeros(probability.shape[1:], np.float32)
    for p in probability:  # one class at a time, to save memory
        total -= p * np.log(np.maximum(p, np.float32(MIN_PROBABILITY)))
    return total

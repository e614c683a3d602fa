"""Averages the predictions of several networks and of mirrored views, and measures their disagreement.

Mean of probabilities: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles, 2017, https://arxiv.org/abs/1612.01474. Disagreement, the entropy of the mean minus the mean entropy of the
averaged predictions: Smith and Gal, Understanding Measures of Uncertainty for Adversarial Example Detection, 2018,
https://arxiv.org/abs/1803.08533. The temperature is applied after averaging, since an average is less confident than
its parts: Rahaman and Thiery, Uncertainty Quantification and Deep Ensembles, 2021, https://arxiv.org/abs/2007.08792.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float32

from medssl.inference.predictor import Predictor, apply_temperature
from medssl.inference.streaming.body_windows import BodyWindows
from medssl.inference.streaming.case_stream import CaseStream, Prediction, Slab, collect_prediction
from medssl.inference.streaming.grid_map import GridMap
from medssl.inference.streaming.mean_slabs import stream_mean
from medssl.inference.test_time_augmentation import MirrorView
from medssl.volume import Volume


@dataclass(frozen=True)
class Ensemble:
    """Predictors with the same input and classes, each applied to every view.

    Memory grows neither with the number of members nor with the volume: sums that are large lie in a temporary file.

    Args:
        members: The predictors; preparation and output settings are those of the first.
        views: The views for test-time augmentation.
        temperature: The divisor of the logits of the mean; 1 leaves it unchanged.
    """

    members: tuple[Predictor, ...]
    views: tuple[MirrorView, ...] = (MirrorView(),)
    temperature: float = 1.0

    @property
    def num_predictions(self) -> int:
        """The number of predictions to measure the disagreement of: members times views."""
        return len(self.members) * len(self.views)

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Returns the mean prediction for a scan, with the disagreement of its parts as uncertainty."""
        return collect_prediction(self.stream(volume, case), volume)

    def stream(self, volume: Volume, case: str) -> CaseStream:
        """Returns the mean prediction as a stream of blocks."""
        prepared = self.members[0].prepare(volume)
        grid_map = GridMap.between(prepared, volume, self.members[0].is_filtered)
        slabs = self._iterate_slabs(prepared, grid_map, self.members[0].find_body(volume, prepared))
        return self.members[0].stream_to_grid(volume, case, grid_map, slabs, has_uncertainty=True)

    def _iterate_slabs(self, prepared: Volume, grid_map: GridMap, body: BodyWindows | None) -> Iterator[Slab]:
        """Yields the calibrated mean and the disagreement, in the order of the map."""
        is_swapped = grid_map.order[1] > grid_map.order[2]
        for mean, disagreement in self._stream_mean(prepared.voxels, grid_map.order[0], grid_map.is_reversed, body):
            p = apply_temperature(mean, self.temperature)
            if is_swapped:
                p, disagreement = p.swapaxes(2, 3), disagreement.swapaxes(1, 2)
            yield Slab(p, disagreement)

    def predict_mean_and_disagreement(
        self, voxels: Float[np.ndarray, "*c i j k"]
    ) -> tuple[Float32[np.ndarray, "n i j k"], Float32[np.ndarray, "i j k"]]:
        """Returns the mean class probabilities of a prepared volume, and the disagreement.

        The disagreement is a fraction of the largest possible entropy, 0 to 1.
        """
        means, disagreements = zip(*self._stream_mean(voxels, 0, False), strict=True)
        return np.concatenate(means, 1), np.concatenate(disagreements)

    def _stream_mean(
        self, voxels: Float[np.ndarray, "*c i j k"], axis: int, is_reversed: bool, body: BodyWindows | None = None
    ) -> Iterator[tuple[Float32[np.ndarray, "n w u v"], Float32[np.ndarray, "w u v"]]]:
        """Yields the mean and the disagreement in slabs along an axis."""

        def stream_view(member: Predictor, view: MirrorView) -> Iterator[Float32[np.ndarray, "n w u v"]]:
            is_turned = is_reversed != (axis in view.axes)
            windows = body.mirror(view.axes) if body else None
            for slab in member.stream_probabilities(view.apply(voxels), axis, is_turned, windows):
                yield view.restore(slab, axis)

        predictions = (stream_view(member, view) for member, view in product(self.members, self.views))
        return stream_mean(predictions, self.num_predictions)

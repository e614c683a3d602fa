"""Averages the predictions of several networks and of mirrored views, and measures their disagreement.

Mean of probabilities: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles, 2017, https://arxiv.org/abs/1612.01474. Disagreement, the entropy of the mean minus the mean entropy of the
averaged predictions: Smith and Gal, Understanding Measures of Uncertainty for Adversarial Example Detection, 2018,
https://arxiv.org/abs/1803.08533. The temperature is applied after averaging, since an average is less confident than
its parts: Rahaman and Thiery, Uncertainty Quantification and Deep Ensembles, 2021, https://arxiv.org/abs/2007.08792.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medssl.inference.predictor import MIN_PROBABILITY, Prediction, Predictor, apply_temperature
from medssl.inference.test_time_augmentation import MirrorView
from medssl.volume import Volume


@dataclass(frozen=True)
class Ensemble:
    """Predictors with the same input and classes, each applied to every view.

    Memory does not grow with the number of members: one sum per class and one of entropies are kept.

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
        prepared = self.members[0].prepare(volume)
        mean, entropy_gap = self.predict_mean_and_disagreement(prepared.voxels)
        voxels = apply_temperature(mean, self.temperature).half().numpy()
        probability = replace(prepared, voxels=voxels, unit="probability")
        disagreement = replace(prepared, voxels=entropy_gap.numpy(), unit="probability")
        return self.members[0].to_original_grid(volume, case, probability, disagreement)

    def predict_mean_and_disagreement(
        self, voxels: Float[np.ndarray, "*c i j k"]
    ) -> tuple[Float[Tensor, "n i j k"], Float[Tensor, "i j k"]]:
        """Returns the mean class probabilities of a prepared volume, and the disagreement.

        The disagreement is a fraction of the largest possible entropy, 0 to 1.
        """
        shape, count = voxels.shape[-3:], self.num_predictions
        mean, disagreement = torch.zeros(0), torch.zeros(shape)
        for member in self.members:
            for view in self.views:
                top = 0
                for slab in member.stream_probabilities(view.apply(voxels)):
                    rows = view.source_rows(top, slab.shape[1], shape[0])
                    probability = view.invert(slab.cpu())
                    mean = mean if mean.numel() else torch.zeros(len(probability), *shape)
                    mean[:, rows] += probability / count
                    disagreement[rows] -= class_entropy(probability) / count
                    top += slab.shape[1]
        return mean, ((disagreement + class_entropy(mean)) / np.log(len(mean))).clamp(0, 1)


def class_entropy(probability: Float[Tensor, "n i j k"]) -> Float[Tensor, "i j k"]:
    """Returns the entropy of the class probabilities of each voxel, in nats."""
    total = torch.zeros(probability.shape[1:])
    for p in probability:  # one class at a time, to save memory
        total -= p * p.clamp(min=MIN_PROBABILITY).log()
    return total

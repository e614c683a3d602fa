"""Ensemble: several networks, or one network in several mirrors, asked as one.

The mean of probabilities: Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles, 2017, https://arxiv.org/abs/1612.01474. Disagreement, the entropy of that mean less the mean entropy of
what is averaged: Smith and Gal, Understanding Measures of Uncertainty for Adversarial Example Detection, 2018,
https://arxiv.org/abs/1803.08533. The temperature comes after the mean, as pooling makes it less sure than its parts:
Rahaman and Thiery, Uncertainty Quantification and Deep Ensembles, 2021, https://arxiv.org/abs/2007.08792.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medssl.inference.predictor import LEAST, Prediction, Predictor, tempered
from medssl.inference.test_time_augmentation import View
from medssl.volume import Volume


@dataclass(frozen=True)
class Ensemble:
    """Members that take the same input and name the same classes, each asked in every view; the first one's ways count.

    Of the volume, one sum a class and one of entropies is held, however many members there are.
    """

    members: tuple[Predictor, ...]
    views: tuple[View, ...] = (View(),)
    temperature: float = 1.0

    @property
    def looks(self) -> int:
        """How many answers there are, which may disagree."""
        return len(self.members) * len(self.views)

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """The prediction that all members come to, with how far they disagree."""
        ready = self.members[0].prepare(volume)
        mean, apart = self.pooled(ready.voxels)
        probability = tempered(mean, self.temperature).half().numpy()
        disagreement = replace(ready, voxels=apart.numpy(), unit="probability")
        placed = replace(ready, voxels=probability, unit="probability")
        return self.members[0].finished(volume, case, placed, disagreement)

    def pooled(self, voxels: Float[np.ndarray, "*c i j k"]) -> tuple[Float[Tensor, "n i j k"], Float[Tensor, "i j k"]]:
        """The mean class probabilities of prepared voxels, and the disagreement in shares of the largest entropy."""
        shape, count = voxels.shape[-3:], self.looks
        mean, apart = torch.zeros(0), torch.zeros(shape)
        for member in self.members:
            for view in self.views:
                top = 0
                for slab in member.looked(view.of(voxels)):
                    rows = view.rows(top, slab.shape[1], shape[0])
                    said = view.back(slab.cpu())
                    mean = mean if mean.numel() else torch.zeros(len(said), *shape)
                    mean[:, rows] += said / count
                    apart[rows] -= entropy(said) / count
                    top += slab.shape[1]
        return mean, ((apart + entropy(mean)) / np.log(len(mean))).clamp(0, 1)


def entropy(probability: Float[Tensor, "n i j k"]) -> Float[Tensor, "i j k"]:
    """Of every voxel's classes, in nats; one class at a time."""
    total = torch.zeros(probability.shape[1:])
    for p in probability:
        total -= p * p.clamp(min=LEAST).log()
    return total

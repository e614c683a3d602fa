"""Losses for lesions, few among very many easy voxels: hard negatives are mined, and every lesion counts alike."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.nn.losses import marginal

LEAST = 512  # negatives of a crop that are mined even where it holds no lesion


def mined_ce(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    lesion: Int[Tensor, "b i j k"],
    ratio: float,
    drawn: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the lesions, each lesion counting the same, plus that of the hardest negatives.

    Of a batch, `ratio` negatives are kept for each positive voxel, the worst ones (Shrivastava et al., "Training
    Region-based Object Detectors with Online Hard Example Mining", CVPR 2016, https://arxiv.org/abs/1604.03540). With
    3 for each a network of full resolution stayed at chance, twice ln 2; with 60 it left it (docs/few-labels.md).
    `lesion` numbers the lesions of each crop from 1, so that a small one weighs as much as a large one, as in Kofler
    et al., "blob loss", IPMI 2023 (https://arxiv.org/abs/2205.08209). Classes that were not `drawn` in a crop's volume
    count as its background, as in `losses.dice_ce`.
    """
    ce = F.nll_loss(marginal(logits, drawn), label.clamp_min(0), reduction="none")
    known, positive = label >= 0, label > 0
    hard = _hardest(ce[known & ~positive], ratio * int(positive.sum()) + LEAST * len(label))
    return _by_lesion(ce, lesion, positive) + hard


def focal(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    gamma: float,
    drawn: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Focal loss over all known voxels, divided by the number of positive ones; `drawn` as in `mined_ce`.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (https://arxiv.org/abs/1708.02002).
    """
    ce = F.nll_loss(marginal(logits, drawn), label.clamp_min(0), reduction="none")
    known = label >= 0
    return (ce * (1 - (-ce).exp()) ** gamma)[known].sum() / (label > 0).sum().clamp_min(LEAST)


def _hardest(ce: Float[Tensor, "m"], count: float) -> Float[Tensor, ""]:
    """The mean of the largest terms; 0 where there are none."""
    few = min(len(ce), round(count))
    return ce.topk(few, sorted=False).values.sum() / max(1, few)


def _by_lesion(
    ce: Float[Tensor, "b i j k"], lesion: Int[Tensor, "b i j k"], positive: Bool[Tensor, "b i j k"]
) -> Float[Tensor, ""]:
    """The mean over lesions of the mean over a lesion's voxels; 0 without lesions."""
    crop = torch.arange(len(lesion), device=lesion.device).view(-1, 1, 1, 1)
    number = (crop * (lesion.max() + 1) + lesion)[positive]
    _, place, count = number.unique(return_inverse=True, return_counts=True)
    return (ce[positive] / count[place]).sum() / max(1, len(count))

"""Voxel losses for lesion detection, where few lesion voxels face a large number of easy background voxels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.nn.losses import marginal_log_softmax

MIN_NEGATIVES = 512  # mined for each crop, in addition to those for its lesions


def hard_negative_ce(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    lesion: Int[Tensor, "b i j k"],
    ratio: float,
    annotated: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the cross-entropy of lesions plus the cross-entropy of the hardest negatives.

    Each lesion has the same weight whatever its size, as in Kofler et al., "blob loss", IPMI 2023
    (https://arxiv.org/abs/2205.08209). The negatives of a batch are mined as in Shrivastava et al., "Training
    Region-based Object Detectors with Online Hard Example Mining", CVPR 2016 (https://arxiv.org/abs/1604.03540).

    Args:
        logits: One channel for each class.
        label: Class of each voxel, negative where unknown.
        lesion: Number of the lesion of each voxel, from 1 in each crop.
        ratio: Number of negatives for each positive voxel. At full resolution, a ratio of 3 left a network at chance
            (a loss of twice ln 2); a ratio of 60 did not (docs/few-labels.md).
        annotated: Which classes are annotated in the volume of each crop; the others count as background, as in
            `losses.dice_ce`. None is all.
    """
    ce = F.nll_loss(marginal_log_softmax(logits, annotated), label.clamp_min(0), reduction="none")
    valid, positive = label >= 0, label > 0
    count = ratio * int(positive.sum()) + MIN_NEGATIVES * len(label)
    return _average_over_lesions(ce, lesion, positive) + _average_hardest(ce[valid & ~positive], count)


def focal_loss(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    gamma: float,
    annotated: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the focal loss, summed over known voxels and divided by the number of positive voxels.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (https://arxiv.org/abs/1708.02002).

    Args:
        logits: One channel for each class.
        label: Class of each voxel, negative where unknown.
        gamma: Exponent that reduces the weight of easy voxels.
        annotated: As in `hard_negative_ce`.
    """
    ce = F.nll_loss(marginal_log_softmax(logits, annotated), label.clamp_min(0), reduction="none")
    valid = label >= 0
    return (ce * (1 - (-ce).exp()) ** gamma)[valid].sum() / (label > 0).sum().clamp_min(MIN_NEGATIVES)


def _average_hardest(ce: Float[Tensor, "m"], count: float) -> Float[Tensor, ""]:
    """Returns the mean of the `count` largest terms, or 0 if there are none."""
    size = min(len(ce), round(count))
    return ce.topk(size, sorted=False).values.sum() / max(1, size)


def _average_over_lesions(
    ce: Float[Tensor, "b i j k"], lesion: Int[Tensor, "b i j k"], positive: Bool[Tensor, "b i j k"]
) -> Float[Tensor, ""]:
    """Returns the mean over lesions of the mean over the voxels of a lesion, or 0 without lesions."""
    crop = torch.arange(len(lesion), device=lesion.device).view(-1, 1, 1, 1)
    number = (crop * (lesion.max() + 1) + lesion)[positive]
    _, index, count = number.unique(return_inverse=True, return_counts=True)
    return (ce[positive] / count[index]).sum() / max(1, len(count))

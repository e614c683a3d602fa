"""Voxel losses for lesion detection, where few lesion voxels face a large number of easy background voxels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.nn.collectives import divide_sums, sum_over_processes
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
    (https://arxiv.org/abs/2205.08209). The negatives of the global batch are mined as in Shrivastava et al., "Training
    Region-based Object Detectors with Online Hard Example Mining", CVPR 2016 (https://arxiv.org/abs/1604.03540).

    Args:
        logits: One channel for each class.
        label: Class of each voxel, negative where unknown.
        lesion: Number of the lesion of each voxel, from 1 in each crop.
        ratio: Number of negatives for each positive voxel. At full resolution, a ratio of 3 left a network at chance
            (a loss of twice ln 2); a ratio of 60 did not (docs/few-labels-trials.md).
        annotated: Which classes are annotated in the volume of each crop; the others count as background, as in
            `losses.dice_ce`. None is all.
    """
    ce = F.nll_loss(marginal_log_softmax(logits, annotated), label.clamp_min(0), reduction="none")
    valid, positive = label >= 0, label > 0
    negative = ce[valid & ~positive]
    sizes = torch.tensor([int(positive.sum()), len(label), len(negative)], device=ce.device)
    num_positive, num_crops, num_negative = sum_over_processes(sizes).tolist()
    count = min(num_negative, round(ratio * num_positive + MIN_NEGATIVES * num_crops))
    return _average_over_lesions(ce, lesion, positive) + _average_hardest(negative, count)


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
    return divide_sums((ce * (1 - (-ce).exp()) ** gamma)[valid].sum(), (label > 0).sum(), MIN_NEGATIVES)


def find_kth_largest(values: Float[Tensor, "m"], k: int) -> Float[Tensor, ""]:
    """Returns the k-th largest of the values of all processes, which are not negative.

    The bits of such numbers have their order. Two histograms, of the upper and of the lower half of the bits, are
    therefore all that the processes exchange.
    """
    bits = values.detach().float().nan_to_num(nan=torch.inf).clamp_min(0).add(0.0).view(torch.int32)  # no NaN, no -0.0
    upper = _find_bucket(bits >> 16, k)
    num_above = sum_over_processes((bits >> 16 > upper).sum())
    lower = _find_bucket((bits & 0xFFFF)[bits >> 16 == upper], k - int(num_above))
    return ((upper << 16) + lower).int().view(torch.float32)


def _find_bucket(numbers: Int[Tensor, "m"], k: int) -> Int[Tensor, ""]:
    """Returns the k-th largest of the numbers of all processes, which lie between 0 and 65535."""
    histogram = sum_over_processes(torch.bincount(numbers, minlength=1 << 16))
    num_at_least = histogram.flip(0).cumsum(0).flip(0)
    return (num_at_least >= k).sum() - 1


def _average_hardest(ce: Float[Tensor, "m"], count: int) -> Float[Tensor, ""]:
    """Returns the mean of the `count` largest terms of all processes, or 0 if there are none; equal terms share."""
    if count == 0:
        return ce.sum()
    ranked = ce.detach().clamp_min(0)
    least = find_kth_largest(ranked, count)
    above, equal = ranked > least, ranked == least
    num_above, num_equal = sum_over_processes(torch.stack([above.sum(), equal.sum()]))
    weights = above + equal * ((count - num_above) / num_equal.clamp_min(1))
    return sum_over_processes((ce * weights).sum()) / max(1, count)


def _average_over_lesions(
    ce: Float[Tensor, "b i j k"], lesion: Int[Tensor, "b i j k"], positive: Bool[Tensor, "b i j k"]
) -> Float[Tensor, ""]:
    """Returns the mean over lesions of the mean over the voxels of a lesion, or 0 without lesions."""
    crop = torch.arange(len(lesion), device=lesion.device).view(-1, 1, 1, 1)
    number = (crop * (lesion.max() + 1) + lesion)[positive]
    _, index, count = number.unique(return_inverse=True, return_counts=True)
    return divide_sums((ce[positive] / count[index]).sum(), torch.tensor(len(count), device=ce.device), 1)

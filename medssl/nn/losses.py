"""Segmentation losses for partially labelled volumes.

A negative label marks a voxel of unknown class. The background may contain classes that are not annotated in a volume.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.nn.collectives import divide_sums, sum_over_processes

Loss = Callable[[Float[Tensor, "b n i j k"], Int[Tensor, "b i j k"]], Float[Tensor, ""]]


def dice_ce(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    annotated: Bool[Tensor, "b n"] | None = None,
    class_balance: float = 0.0,
) -> Float[Tensor, ""]:
    """Returns the soft Dice loss of the foreground classes plus the cross-entropy.

    Dice is computed over the global batch (Isensee et al., nnU-Net, 2021, https://doi.org/10.1038/s41592-020-01008-z),
    which varies less than per crop if crops hold little foreground.

    Args:
        logits: One channel for each class.
        label: Class of each voxel, negative where unknown.
        annotated: Which classes are annotated in the volume of each crop; None is all. The other classes count as
            background: the marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised
            multi-organ segmentation" (2021), https://doi.org/10.1016/j.media.2021.101979.
        class_balance: The cross-entropy of a voxel is weighted by the fraction of voxels of its class to the power of
            -class_balance.
    """
    annotated = torch.ones_like(logits[:, :, 0, 0, 0], dtype=torch.bool) if annotated is None else annotated
    log_probabilities = marginal_log_softmax(logits, annotated)
    ce = F.nll_loss(log_probabilities, label.clamp_min(0), reduction="none")
    target = F.one_hot(label.clamp_min(0), logits.shape[1]).movedim(-1, 1)
    valid = (label >= 0)[:, None] & _broadcast(annotated)
    dice = _soft_dice(log_probabilities.exp(), target, valid)[1:][sum_over_processes(annotated[:, 1:].sum(0)) > 0]
    weights = _compute_voxel_weights(label, logits.shape[1], class_balance)
    return _weighted_mean(ce, weights) + 1 - dice.sum() / max(1, len(dice))


def regions_ce(
    logits: Float[Tensor, "b r i j k"],
    label: Int[Tensor, "b i j k"],
    members: Bool[Tensor, "n r"],
    annotated: Bool[Tensor, "b n"] | None = None,
    class_balance: float = 0.0,
) -> Float[Tensor, ""]:
    """Returns the soft Dice loss plus the binary cross-entropy of regions, which are unions of classes (nnU-Net).

    A background voxel is ignored for regions with a class that is not annotated in the volume.

    Args:
        logits: One channel for each region.
        label: Class of each voxel, negative where unknown.
        members: Which classes each region consists of; regions may be nested.
        annotated: Which classes are annotated in the volume of each crop; None is all.
        class_balance: As in `dice_ce`.
    """
    target = members[label.clamp_min(0)].movedim(-1, 1)
    valid = (label >= 0)[:, None].expand_as(target)
    if annotated is not None:
        is_incomplete = (~annotated).float() @ members.float() > 0
        valid = valid & ~((label == 0)[:, None] & _broadcast(is_incomplete))
    ce = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    weights = _compute_voxel_weights(label, len(members), class_balance)[:, None] * valid
    return _weighted_mean(ce, weights) + 1 - _soft_dice(logits.float().sigmoid(), target, valid).mean()


def deep_supervision(
    maps: list[Float[Tensor, "b n _ _ _"]], label: Int[Tensor, "b i j k"], loss: Loss = dice_ce
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes a loss at several resolutions.

    Args:
        maps: Logits at decreasing resolution.
        label: Class of each voxel at the finest resolution, negative where unknown.
        loss: The loss of one map.

    Returns:
        The weighted sum of the losses, and the detached loss of the finest map. The weights halve from fine to coarse
        and sum to 1.
    """
    weights = torch.tensor([0.5**n for n in range(len(maps))])
    weights = weights / weights.sum()
    losses = [loss(logits, _downsample_label(label, logits.shape[2:])) for logits in maps]
    total = torch.stack([weight * value for weight, value in zip(weights.tolist(), losses, strict=True)]).sum()
    return total, losses[0].detach()


def marginal_log_softmax(
    logits: Float[Tensor, "b n i j k"], annotated: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b n i j k"]:
    """Returns log-probabilities in which the probability of classes that are not annotated is added to background.

    Args:
        logits: One channel for each class.
        annotated: Which classes are annotated in the volume of each crop; None is all.
    """
    log_probabilities = logits.float().log_softmax(1)
    if annotated is None or annotated.all():
        return log_probabilities
    hidden = ~annotated
    hidden[:, 0] = True
    background = log_probabilities.masked_fill(~_broadcast(hidden), -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([background, log_probabilities[:, 1:]], 1)


def _compute_voxel_weights(
    label: Int[Tensor, "b i j k"], classes: int, class_balance: float
) -> Float[Tensor, "b i j k"]:
    """Returns the weight of the cross-entropy of each voxel, which is 0 for unknown voxels."""
    valid = label >= 0
    if not class_balance:
        return valid.float()
    counts = sum_over_processes(torch.bincount(label[valid], minlength=classes))
    fraction = counts / counts.sum().clamp_min(1)
    return valid * fraction.clamp_min(1e-9)[label.clamp_min(0)] ** -class_balance


def _soft_dice(p: Float[Tensor, "b n i j k"], target: Tensor, valid: Bool[Tensor, "b n i j k"]) -> Float[Tensor, "n"]:
    """Returns the soft Dice score of each channel over the valid voxels of the global batch."""
    axes = (0, 2, 3, 4)
    p, target = p * valid, target * valid
    overlap, total = sum_over_processes(torch.stack([(p * target).sum(axes), p.sum(axes) + target.sum(axes)]))
    return (2 * overlap + 1e-5) / (total + 1e-5)


def _weighted_mean(values: Float[Tensor, "*n"], weights: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Returns the weighted mean over all processes, or 0 if all weights are 0."""
    return divide_sums((values * weights).sum(), weights.sum(), 1e-9)


def _broadcast(x: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n 1 1 1"]:
    return x[..., None, None, None]


def _downsample_label(label: Int[Tensor, "b i j k"], shape: torch.Size) -> Int[Tensor, "b _ _ _"]:
    return F.interpolate(label[:, None].float(), size=shape, mode="nearest-exact")[:, 0].long()

"""Losses on labelled voxels: a negative label is unknown, and what was not drawn may hide in the background."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Float[Tensor, "b n i j k"], Int[Tensor, "b i j k"]], Float[Tensor, ""]]


def dice_ce(
    logits: Float[Tensor, "b n i j k"],
    label: Int[Tensor, "b i j k"],
    drawn: Bool[Tensor, "b n"] | None = None,
    balance: float = 0.0,
) -> Float[Tensor, ""]:
    """Soft Dice over the foreground classes of the batch, plus cross-entropy.

    Dice is taken over the whole batch (Isensee et al., nnU-Net, 2021, https://doi.org/10.1038/s41592-020-01008-z),
    which is steadier than per crop when crops hold little foreground. `drawn` tells which classes were drawn in a
    crop's volume; the others count as its background: the marginal loss of Shi et al., "Marginal loss and exclusion
    loss for partially supervised multi-organ segmentation" (2021), https://doi.org/10.1016/j.media.2021.101979.
    `balance` weighs a voxel's cross-entropy by its class's share of the voxels to the power of -balance.
    """
    drawn = torch.ones_like(logits[:, :, 0, 0, 0], dtype=torch.bool) if drawn is None else drawn
    said = marginal(logits, drawn)
    ce = F.nll_loss(said, label.clamp_min(0), reduction="none")
    target = F.one_hot(label.clamp_min(0), logits.shape[1]).movedim(-1, 1)
    known = (label >= 0)[:, None] & _spread(drawn)
    dice = _dice(said.exp(), target, known)[1:][drawn[:, 1:].any(0)]
    return _mean(ce, _weights(label, logits.shape[1], balance)) + 1 - _mean(dice, torch.ones_like(dice))


def regions_ce(
    logits: Float[Tensor, "b r i j k"],
    label: Int[Tensor, "b i j k"],
    members: Bool[Tensor, "n r"],
    drawn: Bool[Tensor, "b n"] | None = None,
    balance: float = 0.0,
) -> Float[Tensor, ""]:
    """Soft Dice and binary cross-entropy of regions: unions of classes, one of which may lie inside another (nnU-Net).

    A background voxel tells nothing about a region of which some class was not drawn.
    """
    target = members[label.clamp_min(0)].movedim(-1, 1)
    known = (label >= 0)[:, None].expand_as(target)
    if drawn is not None:
        open_to = (~drawn).float() @ members.float() > 0
        known = known & ~((label == 0)[:, None] & _spread(open_to))
    ce = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    weights = _weights(label, len(members), balance)[:, None] * known
    return _mean(ce, weights) + 1 - _dice(logits.float().sigmoid(), target, known).mean()


def deeply(
    maps: list[Float[Tensor, "b n _ _ _"]], label: Int[Tensor, "b i j k"], loss: Loss = dice_ce
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of every map, halving in weight from fine to coarse with weights that sum to 1; and the finest alone."""
    weights = torch.tensor([0.5**n for n in range(len(maps))])
    losses = [loss(m, _shrunk(label, m.shape[2:])) for m in maps]
    total = torch.stack([w * one for w, one in zip((weights / weights.sum()).tolist(), losses, strict=True)]).sum()
    return total, losses[0].detach()


def marginal(logits: Float[Tensor, "b n i j k"], drawn: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n i j k"]:
    """Log-probabilities, with those of the classes that were not drawn added to the background's; None: all were."""
    said = logits.float().log_softmax(1)
    if drawn is None or drawn.all():
        return said
    hidden = ~drawn
    hidden[:, 0] = True
    background = said.masked_fill(~_spread(hidden), -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([background, said[:, 1:]], 1)


def _weights(label: Int[Tensor, "b i j k"], classes: int, balance: float) -> Float[Tensor, "b i j k"]:
    """What each voxel counts; unknown ones nothing."""
    known = label >= 0
    if not balance:
        return known.float()
    share = torch.bincount(label[known], minlength=classes) / known.sum().clamp_min(1)
    return known * share.clamp_min(1e-9)[label.clamp_min(0)] ** -balance


def _dice(p: Float[Tensor, "b n i j k"], target: Tensor, known: Bool[Tensor, "b n i j k"]) -> Float[Tensor, "n"]:
    axes = (0, 2, 3, 4)
    p, target = p * known, target * known
    return (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)


def _mean(values: Float[Tensor, "*n"], weights: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The weighted mean; 0 where nothing counts."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-9)


def _spread(of_crop: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n 1 1 1"]:
    return of_crop[..., None, None, None]


def _shrunk(label: Int[Tensor, "b i j k"], shape: torch.Size) -> Int[Tensor, "b _ _ _"]:
    return F.interpolate(label[:, None].float(), size=shape, mode="nearest-exact")[:, 0].long()

"""Losses on labelled voxels; voxels labelled IGNORE count nowhere."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

IGNORE = -1


def dice_ce(logits: Float[Tensor, "b n i j k"], label: Int[Tensor, "b i j k"]) -> Float[Tensor, ""]:
    """Soft Dice over the foreground classes of the batch, plus cross-entropy.

    Dice is taken over the whole batch (Isensee et al., nnU-Net, 2021, https://doi.org/10.1038/s41592-020-01008-z),
    which is steadier than per crop when crops hold little foreground.
    """
    known = label != IGNORE
    target = label.clamp_min(0)
    ce = F.cross_entropy(logits.float(), target, reduction="none")
    ce = (ce * known).sum() / known.sum().clamp_min(1)
    p = logits.float().softmax(1) * known[:, None]
    y = F.one_hot(target, logits.shape[1]).movedim(-1, 1) * known[:, None]
    axes = (0, 2, 3, 4)
    dice = (2 * (p * y).sum(axes) + 1e-5) / (p.sum(axes) + y.sum(axes) + 1e-5)
    return ce + 1 - dice[1:].mean()


def deeply(
    maps: list[Float[Tensor, "b n _ _ _"]], label: Int[Tensor, "b i j k"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of every map, halving in weight from fine to coarse with weights that sum to 1; and the finest alone."""
    weights = torch.tensor([0.5**n for n in range(len(maps))])
    losses = [dice_ce(m, _shrunk(label, m.shape[2:])) for m in maps]
    total = torch.stack([w * loss for w, loss in zip((weights / weights.sum()).tolist(), losses, strict=True)]).sum()
    return total, losses[0].detach()


def _shrunk(label: Int[Tensor, "b i j k"], shape: torch.Size) -> Int[Tensor, "b _ _ _"]:
    return F.interpolate(label[:, None].float(), size=shape, mode="nearest-exact")[:, 0].long()

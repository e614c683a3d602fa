"""Channels: crops that lack some of their co-registered sequences, so that one network learns to serve any of them."""

from dataclasses import replace

import torch

from medssl.data.crops import Crops


def without_some(crops: Crops, chance: float, generator: torch.Generator) -> Crops:
    """Each channel of each crop is missing, blank, with a chance, but never all of them; `whole` keeps them.

    After Neverova et al., "ModDrop: adaptive multi-modal gesture recognition" (2015),
    https://arxiv.org/abs/1501.00102. A blank says by itself that it is missing: whatever a first convolution makes of
    it is what the same convolution without that channel gives.
    """
    order = torch.rand(crops.x.shape[:3], generator=generator)
    # The luckiest channel always stays.
    there = (order >= chance) | (order == order.amax(2, keepdim=True))
    return replace(crops, x=crops.x * there.to(crops.x)[..., None, None, None], whole=crops.x)

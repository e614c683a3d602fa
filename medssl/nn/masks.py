"""Masks: which cells of a volume are drawn to stay visible, from a seed."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.executor import Triple

AIR = 0.05


def draw(
    body: Bool[Tensor, "b 1 p q r"], ratio: float | tuple[float, float], generator: torch.Generator
) -> Bool[Tensor, "b 1 p q r"]:
    """Hides a share of every volume's body cells, and all air. True where visible.

    A range of ratios is drawn from once a volume, so that the number of visible cells differs across the batch. Each
    volume with two body cells has a visible and a hidden one; one with fewer is treated as body throughout.
    """
    flat = body.flatten(1)
    flat = flat | (flat.sum(1, keepdim=True) < 2)
    low, high = (ratio, ratio) if isinstance(ratio, float) else ratio
    hidden = low + (high - low) * torch.rand(len(flat), 1, generator=generator).to(flat.device)
    order = torch.rand(flat.shape, generator=generator).to(flat.device).masked_fill(~flat, 2)
    n = flat.sum(1, keepdim=True)
    visible = ((1 - hidden) * n).round().clamp_min(1).minimum(n - 1)
    return (order.argsort(1).argsort(1) < visible).view(body.shape)


def body(x: Float[Tensor, "b c i j k"], cell: Triple, air: float = AIR) -> Bool[Tensor, "b 1 p q r"]:
    """Cells that hold more than air: in some channel, some voxel is brighter than `air` (intensities in [0, 1])."""
    return F.max_pool3d(x, cell).amax(1, keepdim=True) > air


class Draws(nn.Module):
    """Counts what was drawn, so that a resumed run draws on where it stopped and every rank draws its own."""

    made: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        """The next generator while training; the first one, again and again, while not."""
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if spread else 0
        key = hash((self.seed, rank, int(self.made) if self.training else 0))
        if self.training:
            self.made += 1
        return torch.Generator().manual_seed(key % 2**63)


def mean_where(x: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The mean of `x` where asked for; 0 where nothing is."""
    return (x * where).sum() / where.sum().clamp_min(1)

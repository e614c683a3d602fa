"""Samples which patches of a volume stay visible in masked pretraining, reproducibly from a seed."""

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.executor import Triple

AIR_THRESHOLD = 0.05  # intensity in [0, 1]
HiddenFraction = Annotated[float, Field(gt=0, lt=1)]


def _check_range(ratio: float | tuple[float, float]) -> float | tuple[float, float]:
    if isinstance(ratio, tuple) and ratio[0] > ratio[1]:
        raise ValueError(f"{ratio}: a range must go from low to high")
    return ratio


MaskRatio = Annotated[HiddenFraction | tuple[HiddenFraction, HiddenFraction], AfterValidator(_check_range)]


def sample_visible(
    body: Bool[Tensor, "b 1 p q r"], ratio: float | tuple[float, float], generator: torch.Generator
) -> Bool[Tensor, "b 1 p q r"]:
    """Hides a fraction of the body patches of each volume, and all air.

    A volume with at least two body patches keeps at least one visible and one hidden. In a volume with fewer, all
    patches count as body.

    Args:
        body: Which patches hold body.
        ratio: Fraction of the body patches to hide. A range (low, high) is sampled once for each volume, so that the
            number of visible patches differs within the batch.
        generator: A generator on the CPU.

    Returns:
        Which patches are visible.
    """
    flat = body.flatten(1)
    flat = flat | (flat.sum(1, keepdim=True) < 2)
    low, high = (ratio, ratio) if isinstance(ratio, float) else ratio
    hidden = low + (high - low) * torch.rand(len(flat), 1, generator=generator).to(flat.device)
    order = torch.rand(flat.shape, generator=generator).to(flat.device).masked_fill(~flat, 2)
    n = flat.sum(1, keepdim=True)
    num_visible = ((1 - hidden) * n).round().clamp_min(1).minimum(n - 1)
    return (order.argsort(1).argsort(1) < num_visible).view(body.shape)


def find_body_patches(
    x: Float[Tensor, "b c i j k"], patch: Triple, air: float = AIR_THRESHOLD
) -> Bool[Tensor, "b 1 p q r"]:
    """Returns which patches hold body: some voxel of some channel is brighter than air.

    Args:
        x: Intensities in [0, 1].
        patch: Size of a patch in voxels.
        air: The largest intensity of air.
    """
    return F.max_pool3d(x, patch).amax(1, keepdim=True) > air


class SeededGenerators(nn.Module):
    """Makes one random generator for each training step.

    The number of generators made is part of the state dict, so that a resumed run continues the sequence. Each rank has
    its own sequence.
    """

    made: Tensor  # a key of published checkpoints

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        """Returns the next generator in training mode, and always the first one in evaluation mode."""
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if is_distributed else 0
        key = hash((self.seed, rank, int(self.made) if self.training else 0))
        if self.training:
            self.made += 1
        return torch.Generator().manual_seed(key % 2**63)


def masked_mean(x: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Returns the mean of `x` where the mask is true, or 0 if it is true nowhere."""
    return (x * where).sum() / where.sum().clamp_min(1)

"""Samples which patches of a volume stay visible in masked pretraining, reproducibly from a seed."""

import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.collectives import divide_sums, draw_rows
from medssl.nn.executor import Triple

AIR_THRESHOLD = 0.05  # intensity in [0, 1]
HiddenFraction = Annotated[float, Field(gt=0, lt=1)]


def _check_range(ratio: float | tuple[float, float]) -> float | tuple[float, float]:
    if isinstance(ratio, tuple) and ratio[0] > ratio[1]:
        raise ValueError(f"{ratio}: a range must go from low to high")
    return ratio


MaskRatio = Annotated[HiddenFraction | tuple[HiddenFraction, HiddenFraction], AfterValidator(_check_range)]


def sample_visible(
    body: Bool[Tensor, "b 1 p q r"],
    ratio: float | tuple[float, float],
    generator: torch.Generator,
    show_air: bool = False,
) -> Bool[Tensor, "b 1 p q r"]:
    """Hides a fraction of the body patches of each volume; air is hidden or shown as a whole.

    A volume with at least two body patches keeps at least one visible and one hidden. In a volume with fewer, all
    patches count as body.

    Args:
        body: Which patches hold body.
        ratio: Fraction of the body patches to hide. A range (low, high) is sampled once for each volume, so that the
            number of visible patches differs within the batch.
        generator: A generator on the CPU, with the same state in all processes.
        show_air: Whether all air is visible, as it is to a network that is finetuned, instead of hidden.

    Returns:
        Which patches are visible.
    """
    flat = body.flatten(1)
    flat = flat | (flat.sum(1, keepdim=True) < 2)
    low, high = (ratio, ratio) if isinstance(ratio, float) else ratio
    hidden = low + (high - low) * draw_rows((len(flat), 1), generator).to(flat.device)
    order = draw_rows(flat.shape, generator).to(flat.device).masked_fill(~flat, 2)
    n = flat.sum(1, keepdim=True)
    num_visible = ((1 - hidden) * n).round().clamp_min(1).minimum(n - 1)
    visible = order.argsort(1).argsort(1) < num_visible
    return (visible | ~flat if show_air else visible).view(body.shape)


def choose_patch(
    patch_mm: float | None, spacing_mm: tuple[float, float, float], strides: Sequence[Triple], size: Triple
) -> Triple:
    """Returns the size of a mask's patch in voxels that is nearest to a size in mm along each axis.

    Along each axis the patch tiles the crop, and tiles or is tiled by the voxels of every level of the encoder.

    Args:
        patch_mm: Side of a patch in mm; None for the total stride of the encoder.
        spacing_mm: Voxel spacing along each axis.
        strides: Stride of each level, relative to the previous one.
        size: Shape of the crop in voxels, a multiple of the total stride.
    """
    sides = []
    for spacing, axis_strides, voxels in zip(spacing_mm, zip(*strides, strict=True), size, strict=True):
        products = list(accumulate(axis_strides, operator.mul))
        total = products[-1]
        coarser = [total * n for n in range(2, voxels // total + 1) if voxels % (total * n) == 0]
        wanted = total if patch_mm is None else patch_mm / spacing
        sides.append(min([*products, *coarser], key=lambda side: abs(math.log(side / wanted))))
    return sides[0], sides[1], sides[2]


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
    """Makes one random generator for each training step, the same in all processes.

    The number of generators made is part of the state dict, so that a resumed run continues the sequence.
    """

    made: Tensor  # a key of published checkpoints

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        """Returns the next generator in training mode, and always the first one in evaluation mode."""
        key = hash((self.seed, 0, int(self.made) if self.training else 0))  # the 0 keeps the masks of older runs
        if self.training:
            self.made += 1
        return torch.Generator().manual_seed(key % 2**63)


def masked_mean(x: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Returns the mean over all processes of `x` where the mask is true, or 0 if it is true nowhere."""
    return divide_sums((x * where).sum(), where.sum(), 1)

"""What an encoder is: a volume and, on request, which of its cells are visible, give a pyramid."""

import logging
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.nn.executor import Layout, Masked, Triple
from medssl.nn.sparse import Blocks
from medssl.settings import Settings

log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Gives a pyramid of features, fine to coarse; `channels` and `strides` have one entry a level.

    `unmasked` names the layers that no mask reaches, if there are any. Then `sparse` is False: hidden voxels still
    change nothing, but those layers take hidden cells for zeros, and all of the volume is computed.
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[Triple, ...]
    unmasked = ""
    origin: Literal["", "nnunet", "monai"] = ""  # whose network this is, so that theirs takes its weights
    said = False  # whether it was told that there are unmasked layers
    dense = False  # True: under a mask, run dense kernels and mask what they gave

    @property
    def sparse(self) -> bool:
        """Whether every layer keeps to visible cells."""
        return not self.unmasked

    @property
    def cell(self) -> Triple:
        """The total stride: the voxels of one cell, hidden or visible as a whole."""
        i, j, k = (math.prod(axis) for axis in zip(*self.strides, strict=True))
        return i, j, k

    def forward(self, x: Float[Tensor, "b c i j k"], keep: Bool[Tensor, "b 1 p q r"] | None = None) -> list[Tensor]:
        """Features at every level; with `keep`, hidden cells are empty at every level and change nothing."""
        on = self.layout(x, keep)
        return [on.leave(level) for level in self.features(x, on)]

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        raise NotImplementedError

    def layout(self, x: Float[Tensor, "b c i j k"], keep: Bool[Tensor, "b 1 p q r"] | None) -> Layout:
        """Where this network would run its layers: on everything, or on visible cells."""
        wanted = (len(x), 1, *cells(x, self.cell))
        _sound(x, wanted[2])
        if keep is None:
            return Layout()
        if keep.shape != wanted:
            raise BadInput(f"keep is {tuple(keep.shape)}, these crops with cells of {self.cell} voxels need {wanted}")
        if self.unmasked and not self.said:
            name = type(self).__name__
            log.warning("%s: %s take hidden cells for zeros; nothing leaks, and nothing is saved", name, self.unmasked)
            self.said = True
        return Masked(keep) if self.dense or not self.sparse else Blocks(keep)


class Choice(Settings):
    """The settings of one encoder, by which a run chooses it and builds it again."""

    name: str

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        raise NotImplementedError


def triples(strides: Sequence[int | Triple]) -> tuple[Triple, ...]:
    """Strides with one number an axis."""
    return tuple((s, s, s) if isinstance(s, int) else s for s in strides)


def check_levels(
    channels: Sequence[int], strides: Sequence[int | Triple], blocks: int | Sequence[int]
) -> tuple[int, ...]:
    """How many blocks each level has; a ValueError where channels, strides and blocks disagree."""
    levels = len(channels)
    depths = (blocks,) * levels if isinstance(blocks, int) else tuple(blocks)
    if len(strides) != levels or len(depths) != levels:
        raise ValueError(f"channels, strides and blocks need one entry a level; channels has {levels}")
    if min(*channels, *depths, *(min(s) for s in triples(strides))) < 1:
        raise ValueError("channels, strides and blocks are at least 1")
    return depths


def cells(x: Float[Tensor, "b c i j k"], cell: Triple) -> Triple:
    """How many cells a volume has an axis; a volume that its cells do not fill is refused."""
    size = tuple(x.shape[2:])
    if any(n % c for n, c in zip(size, cell, strict=True)):
        fits = tuple(-(-n // c) * c for n, c in zip(size, cell, strict=True))
        raise BadInput(f"crop {size} does not divide by the network's total stride {cell}; use {fits} or other strides")
    return size[0] // cell[0], size[1] // cell[1], size[2] // cell[2]


def _sound(x: Float[Tensor, "b c i j k"], cells: int) -> None:
    """Refuses what torch (2.13) learns from memory it never wrote: bf16 on a CPU, on maps of a depth of two."""
    learns = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and x.device.type == "cpu"
    if learns and cells < 3:
        raise BadInput(
            f"crop {tuple(x.shape[2:])}: torch computes wrong gradients in bf16 on a CPU with fewer than 3 cells along "
            f"the first axis; use a crop of {3 * x.shape[2] // cells} there, or plan.precision=32"
        )

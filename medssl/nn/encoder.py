"""The encoder contract and a residual CNN: a volume and, on request, which of its cells are visible, give a pyramid."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import BadInput
from medssl.nn import norms
from medssl.nn.layout import Layout, Masked, Triple
from medssl.nn.sparse import Blocks
from medssl.settings import Settings

UNIT = (1, 1, 1)


class Encoder(nn.Module):
    """Gives a pyramid of features, fine to coarse; `channels` and `strides` have one entry a level."""

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[Triple, ...]
    dense = False  # True: under a mask, run dense kernels and mask what they gave

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
        if keep is None:
            return Layout()
        if keep.shape != wanted:
            raise BadInput(f"keep is {tuple(keep.shape)}, these crops with cells of {self.cell} voxels need {wanted}")
        return Masked(keep) if self.dense else Blocks(keep)


class EncoderConfig(Settings):
    """What a run writes down so that its network can be built again."""

    name: Literal["residual"] = "residual"
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1)
    strides: tuple[int | Triple, ...] = (1, 2, 2, 2)
    blocks: int | tuple[int, ...] = 1
    norm: norms.Norm = "instance"

    @model_validator(mode="after")
    def _levels_agree(self) -> "EncoderConfig":
        levels = len(self.channels)
        if len(self.strides) != levels or (isinstance(self.blocks, tuple) and len(self.blocks) != levels):
            raise ValueError(f"channels, strides and blocks need one entry a level; channels has {levels}")
        depths = self.blocks if isinstance(self.blocks, tuple) else (self.blocks,)
        if min(*self.channels, *depths, *(min(s) for s in triples(self.strides))) < 1:
            raise ValueError("channels, strides and blocks are at least 1")
        return self


def build(config: EncoderConfig, in_channels: int) -> Encoder:
    """The encoder a config describes."""
    return ResEncoder(config.channels, config.strides, config.blocks, in_channels, config.norm)


class ResEncoder(Encoder):
    """A stem and, per level, residual blocks of which the first one strides.

    The block of He et al. (2016), https://arxiv.org/abs/1512.03385, with the average-pooled shortcut of He et al.
    (2019), https://arxiv.org/abs/1812.01187, as in nnU-Net's residual encoders, https://arxiv.org/abs/2404.09556.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256),
        strides: Sequence[int | Triple] = (1, 2, 2, 2),
        blocks: int | Sequence[int] = 1,
        in_channels: int = 1,
        norm: norms.Norm = "instance",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = triples(strides)
        depths = [blocks] * len(channels) if isinstance(blocks, int) else blocks
        self.stem = ConvNorm(in_channels, channels[0], norm)
        widths = pairwise((channels[0], *channels))
        levels = zip(widths, self.strides, depths, strict=True)
        self.levels = nn.ModuleList(Level(a, b, stride, depth, norm) for (a, b), stride, depth in levels)
        # Convolutions of volumes run 1.4 times as fast in this order on CPU; the values and the keys are the same.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        x = _activate(self.stem(on.enter(x), on))
        pyramid = []
        for level in self.levels:
            x = level(x, on)
            pyramid.append(x)
        return pyramid


class ConvNorm(nn.Module):
    """A convolution and a norm, run by a layout."""

    def __init__(self, inward: int, outward: int, norm: norms.Norm, kernel: int = 3, stride: Triple = UNIT) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inward, outward, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = norms.make(norm, outward)

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """Normalised features."""
        return on.norm(self.norm, on.conv(self.conv, x))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which pools and projects where the block changes size or width."""

    def __init__(self, inward: int, outward: int, stride: Triple, norm: norms.Norm) -> None:
        super().__init__()
        self.stride = stride
        self.first = ConvNorm(inward, outward, norm, stride=stride)
        self.second = ConvNorm(outward, outward, norm)
        self.skip = ConvNorm(inward, outward, norm, kernel=1) if inward != outward else None

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """The features after the block."""
        y = self.second(_activate(self.first(x, on)), on)
        # A pool's window never leaves its cell, so that hidden cells stay zero without a mask.
        short = x if max(self.stride) == 1 else F.avg_pool3d(x, self.stride)
        return _activate(y + (short if self.skip is None else self.skip(short, on)))


class Level(nn.ModuleList):
    """Blocks at one resolution, the first of which strides to it."""

    def __init__(self, inward: int, outward: int, stride: Triple, depth: int, norm: norms.Norm) -> None:
        first = Block(inward, outward, stride, norm)
        super().__init__([first, *(Block(outward, outward, UNIT, norm) for _ in range(depth - 1))])

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """The features of the level."""
        for block in self:
            x = block(x, on)
        return x


def _activate(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
    """In place: what a norm or a sum gave is kept by nobody else."""
    return F.leaky_relu(x, 0.01, inplace=True)


def triples(strides: Sequence[int | Triple]) -> tuple[Triple, ...]:
    """Strides with one number an axis."""
    return tuple((s, s, s) if isinstance(s, int) else s for s in strides)


def cells(x: Float[Tensor, "b c i j k"], cell: Triple) -> Triple:
    """How many cells a volume has an axis; a volume that its cells do not fill is refused."""
    size = tuple(x.shape[2:])
    if any(n % c for n, c in zip(size, cell, strict=True)):
        fits = tuple(-(-n // c) * c for n, c in zip(size, cell, strict=True))
        raise BadInput(f"crop {size} does not divide by the network's total stride {cell}; use {fits} or other strides")
    return size[0] // cell[0], size[1] // cell[1], size[2] // cell[2]

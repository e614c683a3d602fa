"""A residual CNN of any widths, strides and depths."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.encoders.base import Choice, Encoder, check_levels, triples
from medssl.nn.executor import Layout, Triple

UNIT = (1, 1, 1)


class Config(Choice):
    """Widths, strides and numbers of blocks, one entry a level."""

    name: Literal["residual"] = "residual"
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1)
    strides: tuple[int | Triple, ...] = (1, 2, 2, 2)
    blocks: int | tuple[int, ...] = 1
    norm: norms.Norm = "instance"
    bias: bool = Field(False, description="of the convolutions, as nnU-Net has it; those of shortcuts have none")

    @model_validator(mode="after")
    def _levels_agree(self) -> "Config":
        check_levels(self.channels, self.strides, self.blocks)
        return self

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        return ResEncoder(self.channels, self.strides, self.blocks, in_channels, self.norm, self.bias)


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
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.origin = "nnunet" if norm in ("instance", "batch") else ""
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = triples(strides)
        depths = check_levels(channels, strides, blocks)
        self.stem = ConvNorm(in_channels, channels[0], norm, bias=bias)
        widths = pairwise((channels[0], *channels))
        levels = zip(widths, self.strides, depths, strict=True)
        self.levels = nn.ModuleList(Level(a, b, stride, depth, norm, bias) for (a, b), stride, depth in levels)
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

    def __init__(
        self, inward: int, outward: int, norm: norms.Norm, kernel: int = 3, stride: Triple = UNIT, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inward, outward, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = norms.make(norm, outward)

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """Normalised features."""
        return on.norm(self.norm, on.conv(self.conv, x))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which pools and projects where the block changes size or width."""

    def __init__(self, inward: int, outward: int, stride: Triple, norm: norms.Norm, bias: bool) -> None:
        super().__init__()
        self.stride = stride
        self.first = ConvNorm(inward, outward, norm, stride=stride, bias=bias)
        self.second = ConvNorm(outward, outward, norm, bias=bias)
        self.skip = ConvNorm(inward, outward, norm, kernel=1) if inward != outward else None

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """The features after the block."""
        y = self.second(_activate(self.first(x, on)), on)
        # A pool's window never leaves its cell, so that hidden cells stay zero without a mask.
        short = x if max(self.stride) == 1 else F.avg_pool3d(x, self.stride)
        return _activate(y + (short if self.skip is None else self.skip(short, on)))


class Level(nn.ModuleList):
    """Blocks at one resolution, the first of which strides to it."""

    def __init__(self, inward: int, outward: int, stride: Triple, depth: int, norm: norms.Norm, bias: bool) -> None:
        first = Block(inward, outward, stride, norm, bias)
        super().__init__([first, *(Block(outward, outward, UNIT, norm, bias) for _ in range(depth - 1))])

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """The features of the level."""
        for block in self:
            x = block(x, on)
        return x


def _activate(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
    """In place: what a norm or a sum gave is kept by nobody else."""
    return F.leaky_relu(x, 0.01, inplace=True)

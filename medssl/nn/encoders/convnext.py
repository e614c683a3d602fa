"""A ConvNeXt of three dimensions: depthwise convolutions, a norm a block, and wide pointwise layers.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders" (2023),
https://arxiv.org/abs/2301.00808; in 3D and from full resolution on, Roy et al., "MedNeXt" (2023),
https://arxiv.org/abs/2303.09975. Deviation: the convolution that strides has the size of its stride, as in ConvNeXt,
so that it never reads from another cell.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.encoders.base import Choice, Encoder, check_levels, triples
from medssl.nn.executor import Layout, Triple


class Config(Choice):
    """Widths, strides and numbers of blocks, one entry a level."""

    name: Literal["convnext"] = "convnext"
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1)
    strides: tuple[int | Triple, ...] = (1, 2, 2, 2)
    blocks: int | tuple[int, ...] = 2
    norm: norms.Norm = "layer"
    kernel: Literal[3, 5, 7] = 5
    expansion: PositiveInt = Field(2, description="of the channels inside a block")

    @model_validator(mode="after")
    def _levels_agree(self) -> "Config":
        check_levels(self.channels, self.strides, self.blocks)
        return self

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        return ConvNeXt(self.channels, self.strides, self.blocks, in_channels, self.norm, self.kernel, self.expansion)


class ConvNeXt(Encoder):
    """A stem and, per level, a strided convolution and blocks about a residual stream."""

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128),
        strides: Sequence[int | Triple] = (1, 2, 2, 2),
        blocks: int | Sequence[int] = 2,
        in_channels: int = 1,
        norm: norms.Norm = "layer",
        kernel: int = 5,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = triples(strides)
        depths = check_levels(channels, strides, blocks)
        self.stem = Stem(in_channels, channels[0], self.strides[0], norm)
        widths = zip(pairwise(channels), self.strides[1:], strict=True)
        self.downs = nn.ModuleList(Down(a, b, stride, norm) for (a, b), stride in widths)
        self.levels = nn.ModuleList(
            nn.ModuleList(Block(c, norm, kernel, expansion) for _ in range(depth))
            for c, depth in zip(channels, depths, strict=True)
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        pyramid: list[Tensor] = []
        x = on.enter(x)
        for enter, blocks in zip([self.stem, *self.downs], self.levels, strict=True):
            x = enter(x, on)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, on)
            pyramid.append(x)
        return pyramid


class Stem(nn.Module):
    """Patches of the volume, each for itself, and a norm."""

    def __init__(self, inward: int, outward: int, stride: Triple, norm: norms.Norm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inward, outward, stride, stride)
        self.norm = norms.make(norm, outward)

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """Normalised features."""
        return on.norm(self.norm, on.conv(self.conv, x))


class Down(nn.Module):
    """A norm, and a convolution of the size of its stride."""

    def __init__(self, inward: int, outward: int, stride: Triple, norm: norms.Norm) -> None:
        super().__init__()
        self.norm = norms.make(norm, inward)
        self.conv = nn.Conv3d(inward, outward, stride, stride)

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b d p q r"]:
        """Features of the next level."""
        return on.conv(self.conv, on.norm(self.norm, x))


class Block(nn.Module):
    """A depthwise convolution, a norm, and two pointwise layers that let channels compete, beside a shortcut."""

    def __init__(self, channels: int, norm: norms.Norm, kernel: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.depthwise = nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = norms.make(norm, channels)
        self.widen = nn.Conv3d(channels, wide, 1)
        self.response_norm = norms.ResponseNorm(wide)
        self.narrow = nn.Conv3d(wide, channels, 1)

    def forward(self, x: Float[Tensor, "b c i j k"], on: Layout) -> Float[Tensor, "b c i j k"]:
        """The features after the block."""
        y = on.norm(self.norm, on.conv(self.depthwise, x))
        y = F.gelu(on.conv(self.widen, y))
        return x + on.conv(self.narrow, on.norm(self.response_norm, y))

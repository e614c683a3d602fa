"""A 3D ConvNeXt encoder: blocks of a depthwise convolution, a norm and two pointwise layers.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders" (2023),
https://arxiv.org/abs/2301.00808; in 3D with a first level at full resolution: Roy et al., "MedNeXt" (2023),
https://arxiv.org/abs/2303.09975. Deviation from MedNeXt: the kernel of a strided convolution is as large as its stride,
as in ConvNeXt, so that it never reads from another patch.
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
from medssl.nn.encoders.base import BaseEncoderConfig, Encoder, as_triples, check_levels
from medssl.nn.executor import Executor, Triple


class Config(BaseEncoderConfig):
    """Settings with one entry for each level."""

    name: Literal["convnext"] = Field("convnext", description="name of the encoder")
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1, description="width of each level")
    strides: tuple[int | Triple, ...] = Field(
        (1, 2, 2, 2), description="stride of each level: one number, or one for each axis"
    )
    blocks: int | tuple[int, ...] = Field(2, description="blocks of each level; one number is for all levels")
    norm: norms.Norm = Field("layer", description="normalisation layer of the stem, of each block and of downsampling")
    kernel: Literal[3, 5, 7] = Field(5, description="side of the depthwise kernels in voxels")
    expansion: PositiveInt = Field(2, description="factor by which a block widens its channels")

    @model_validator(mode="after")
    def _check_levels(self) -> "Config":
        check_levels(self.channels, self.strides, self.blocks)
        return self

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return ConvNeXt(self.channels, self.strides, self.blocks, in_channels, self.norm, self.kernel, self.expansion)


class ConvNeXt(Encoder):
    """A stem, and for each level a strided convolution and residual blocks; `Config` describes the arguments."""

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
        self.strides = as_triples(strides)
        depths = check_levels(channels, strides, blocks)
        self.stem = Stem(in_channels, channels[0], self.strides[0], norm)
        widths = zip(pairwise(channels), self.strides[1:], strict=True)
        self.downs = nn.ModuleList(Down(a, b, stride, norm) for (a, b), stride in widths)
        self.levels = nn.ModuleList(
            nn.ModuleList(ConvNeXtBlock(c, norm, kernel, expansion) for _ in range(depth))
            for c, depth in zip(channels, depths, strict=True)
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        pyramid: list[Tensor] = []
        x = executor.to_features(x)
        for downsample, blocks in zip([self.stem, *self.downs], self.levels, strict=True):
            x = downsample(x, executor)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, executor)
            pyramid.append(x)
        return pyramid


class Stem(nn.Module):
    """A patch embedding and a norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, norm: norms.Norm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, stride, stride)
        self.norm = norms.build_norm(norm, out_channels)

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b d p q r"]:
        """Returns the normalised features."""
        return executor.norm(self.norm, executor.conv(self.conv, x))


class Down(nn.Module):
    """A norm and a strided convolution with a kernel as large as its stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, norm: norms.Norm) -> None:
        super().__init__()
        self.norm = norms.build_norm(norm, in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, stride, stride)

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b d p q r"]:
        """Downsamples features to the next level."""
        return executor.conv(self.conv, executor.norm(self.norm, x))


class ConvNeXtBlock(nn.Module):
    """A residual block: a depthwise convolution, a norm, and two pointwise layers with a global response norm."""

    def __init__(self, channels: int, norm: norms.Norm, kernel: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.depthwise = nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = norms.build_norm(norm, channels)
        self.widen = nn.Conv3d(channels, wide, 1)
        self.response_norm = norms.GlobalResponseNorm(wide)
        self.narrow = nn.Conv3d(wide, channels, 1)

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b c i j k"]:
        """Applies the block."""
        y = executor.norm(self.norm, executor.conv(self.depthwise, x))
        y = F.gelu(executor.conv(self.widen, y))
        return x + executor.conv(self.narrow, executor.norm(self.response_norm, y))

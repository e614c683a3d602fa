"""A residual encoder with configurable widths, strides and depths."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.encoders.base import Encoder, MeanAndStd, StandardizingConfig, as_triples, check_levels, expand_kernels
from medssl.nn.executor import Executor, Triple

UNIT_STRIDE = (1, 1, 1)


class ResidualSettings(StandardizingConfig):
    """Settings of residual levels, with one entry for each level."""

    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1, description="width of each level")
    strides: tuple[int | Triple, ...] = Field(
        (1, 2, 2, 2), description="stride of each level: one number, or one for each axis"
    )
    kernels: tuple[int | Triple, ...] = Field(
        (), description="kernel of each level: one number, or one for each axis; [3,3,1] spares thick axial slices"
    )
    blocks: int | tuple[int, ...] = Field(1, description="residual blocks of each level; one number is for all levels")
    norm: norms.Norm = Field("instance", description="normalisation layer behind each convolution")
    bias: bool = Field(False, description="give all convolutions except shortcuts a bias, as in nnU-Net")

    @model_validator(mode="after")
    def _check_levels(self) -> "ResidualSettings":
        check_levels(self.channels, self.strides, self.blocks)
        expand_kernels(self.kernels, len(self.channels))
        return self


class Config(ResidualSettings):
    """Settings with one entry for each level."""

    name: Literal["residual"] = Field("residual", description="name of the encoder")

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return ResEncoder(
            self.channels, self.strides, self.blocks, in_channels, self.norm, self.bias, self.kernels,
            self.input_mean_std,
        )  # fmt: skip


class ResEncoder(Encoder):
    """A stem, and for each level residual blocks of which the first one is strided; `Config` describes the arguments.

    The block is that of He et al. (2016), https://arxiv.org/abs/1512.03385, with the average-pooled shortcut of He et
    al. (2019), https://arxiv.org/abs/1812.01187, as in nnU-Net's residual encoders, https://arxiv.org/abs/2404.09556.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256),
        strides: Sequence[int | Triple] = (1, 2, 2, 2),
        blocks: int | Sequence[int] = 1,
        in_channels: int = 1,
        norm: norms.Norm = "instance",
        bias: bool = False,
        kernels: Sequence[int | Triple] = (),
        input_mean_std: Sequence[MeanAndStd] = (),
    ) -> None:
        super().__init__()
        self.upstream = "nnunet" if norm in ("instance", "batch") else ""
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = as_triples(strides)
        self.kernels = expand_kernels(kernels, len(channels))
        self.set_input_moments(input_mean_std)
        depths = check_levels(channels, strides, blocks)
        self.stem = ConvNorm(in_channels, channels[0], norm, self.kernels[0], bias=bias)
        self.levels = build_levels(self.channels, self.strides, depths, norm, bias, self.kernels)
        # 3D convolutions on a CPU run 1.4 times as fast in this memory order; values and keys stay the same.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        x = activate(self.stem(executor.to_features(self.standardize(x)), executor))
        return run_levels(self.levels, x, executor)


class ResidualLevels(Encoder):
    """The base class of encoders with residual levels behind a stem of their own, which a subclass builds.

    Args:
        config: Settings of the levels.
        in_channels: Number of input channels.
        strides: Strides of the levels behind the stem, if they are not those of the encoder.
    """

    def __init__(self, config: ResidualSettings, in_channels: int, strides: Sequence[Triple] = ()) -> None:
        super().__init__()
        self.in_channels, self.channels, self.strides = in_channels, config.channels, as_triples(config.strides)
        self.kernels = expand_kernels(config.kernels, len(config.channels))
        self.set_input_moments(config.input_mean_std)
        depths = check_levels(self.channels, self.strides, config.blocks)
        self.levels = build_levels(
            self.channels, strides or self.strides, depths, config.norm, config.bias, self.kernels
        )


class ConvNorm(nn.Module):
    """A convolution followed by a norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: norms.Norm,
        kernel: Triple,
        stride: Triple = UNIT_STRIDE,
        bias: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.norm = norms.build_norm(norm, out_channels)

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b d p q r"]:
        """Returns the normalised features."""
        return executor.norm(self.norm, executor.conv(self.conv, x))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which pools and projects if the block changes the resolution or the width."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: Triple, norm: norms.Norm, bias: bool, kernel: Triple
    ) -> None:
        super().__init__()
        self.stride = stride
        self.first = ConvNorm(in_channels, out_channels, norm, kernel, stride, bias)
        self.second = ConvNorm(out_channels, out_channels, norm, kernel, bias=bias)
        self.skip = ConvNorm(in_channels, out_channels, norm, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b d p q r"]:
        """Applies the block."""
        y = self.second(activate(self.first(x, executor)), executor)
        # A pooling window never crosses the border of its patch, so that hidden patches stay zero without a mask.
        shortcut = x if max(self.stride) == 1 else F.avg_pool3d(x, self.stride)
        return activate(y + (shortcut if self.skip is None else self.skip(shortcut, executor)))


class Level(nn.ModuleList):
    """The blocks at one resolution, of which the first one is strided."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Triple,
        depth: int,
        norm: norms.Norm,
        bias: bool,
        kernel: Triple,
    ) -> None:
        blocks = [ResidualBlock(in_channels, out_channels, stride, norm, bias, kernel)]
        for _ in range(depth - 1):
            blocks.append(ResidualBlock(out_channels, out_channels, UNIT_STRIDE, norm, bias, kernel))
        super().__init__(blocks)

    def forward(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> Float[Tensor, "b d p q r"]:
        """Applies the blocks in sequence."""
        for block in self:
            x = block(x, executor)
        return x


def build_levels(
    channels: Sequence[int],
    strides: Sequence[Triple],
    depths: Sequence[int],
    norm: norms.Norm,
    bias: bool,
    kernels: Sequence[Triple],
) -> nn.ModuleList:
    """Builds the levels of a residual encoder; the first one reads a map of its own width."""
    levels = zip(pairwise((channels[0], *channels)), strides, depths, kernels, strict=True)
    return nn.ModuleList(Level(a, b, stride, depth, norm, bias, k) for (a, b), stride, depth, k in levels)


def run_levels(levels: nn.ModuleList, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
    """Applies levels in sequence and returns the result of each, in the storage format of the executor."""
    pyramid = []
    for level in levels:
        x = level(x, executor)
        pyramid.append(x)
    return pyramid


def activate(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
    """Applies a leaky ReLU in place, which is safe behind a norm or a sum: nothing else uses their result."""
    return F.leaky_relu(x, 0.01, inplace=True)

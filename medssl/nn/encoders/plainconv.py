"""The plain convolutional encoder of nnU-Net, whose published networks fit it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.nn import norms
from medssl.nn.encoders.base import Encoder, MeanAndStd, StandardizingConfig, as_triples, check_levels, expand_kernels
from medssl.nn.encoders.residual import UNIT_STRIDE, ConvNorm, activate
from medssl.nn.executor import Executor, Triple


class Config(StandardizingConfig):
    """Settings with one entry for each level."""

    name: Literal["plainconv"] = Field("plainconv", description="name of the encoder")
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=1, description="width of each level")
    strides: tuple[int | Triple, ...] = Field(
        (1, 2, 2, 2), description="stride of each level: one number, or one for each axis"
    )
    kernels: tuple[int | Triple, ...] = Field(
        (), description="kernel of each level: one number, or one for each axis; () is 3 for all"
    )
    convs: int | tuple[int, ...] = Field(2, description="convolutions of each level; one number is for all levels")
    norm: norms.Norm = Field("instance", description="normalisation layer behind each convolution")
    bias: bool = Field(False, description="give all convolutions a bias, as in nnU-Net")

    @model_validator(mode="after")
    def _check_levels(self) -> "Config":
        check_levels(self.channels, self.strides, self.convs)
        expand_kernels(self.kernels, len(self.channels))
        return self

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return PlainConvEncoder(
            self.channels,
            self.strides,
            self.convs,
            in_channels,
            self.norm,
            self.bias,
            self.kernels,
            self.input_mean_std,
        )


class PlainConvEncoder(Encoder):
    """For each level convolutions of which the first one is strided; `Config` describes the arguments.

    Isensee et al., "nnU-Net" (2021), https://doi.org/10.1038/s41592-020-01008-z.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128),
        strides: Sequence[int | Triple] = (1, 2, 2, 2),
        convs: int | Sequence[int] = 2,
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
        depths = check_levels(channels, strides, convs)
        widths = pairwise((in_channels, *channels))
        levels = zip(widths, self.strides, depths, self.kernels, strict=True)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvNorm(b if n else a, b, norm, kernel, UNIT_STRIDE if n else stride, bias) for n in range(depth)
            )
            for (a, b), stride, depth, kernel in levels
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        x = executor.to_features(self.standardize(x))
        pyramid: list[Tensor] = []
        for level in self.levels:
            for layer in level:  # type: ignore[attr-defined]
                x = activate(layer(x, executor))
            pyramid.append(x)
        return pyramid

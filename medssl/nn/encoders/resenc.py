"""The residual encoders of nnU-Net in three preset sizes, which published weights fit."""

from typing import Literal

from pydantic import Field, model_validator

from medssl.nn import norms
from medssl.nn.encoders.base import Encoder, StandardizingConfig, check_levels, expand_kernels
from medssl.nn.encoders.residual import ResEncoder
from medssl.nn.executor import Triple

CHANNELS = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)
STAGES = {"S": 4, "M": 5, "L": 6}


class Config(StandardizingConfig):
    """Settings of a preset encoder: widths double from 32 to 320, and the stages have 1, 3, 4 and then 6 blocks.

    Isensee et al., nnU-Net Revisited, 2024, https://arxiv.org/abs/2404.09556. L, with total stride 32, is the network
    of the weights that OpenMind published (Wald et al., 2025, https://arxiv.org/abs/2412.17041). S and M, with 4 and 5
    stages, are for crops that are not divisible by 32. The presets M, L and XL of nnU-Net all use network L, with three
    patch and batch sizes.
    """

    name: Literal["resenc"] = Field("resenc", description="name of the encoder")
    size: Literal["S", "M", "L"] = Field("L", description="number of stages: S has 4, M has 5, L has 6")
    strides: tuple[int | Triple, ...] = Field(
        (), description="stride of each stage; () is 1 for the first stage and 2 for the others"
    )
    kernels: tuple[int | Triple, ...] = Field(
        (), description="kernel of each stage: one number, or one for each axis; () is 3 for all"
    )
    norm: norms.Norm = Field("instance", description="normalisation layer behind each convolution")

    @model_validator(mode="after")
    def _check_levels(self) -> "Config":
        check_levels(CHANNELS[: STAGES[self.size]], self.steps, 1)
        expand_kernels(self.kernels, STAGES[self.size])
        return self

    @property
    def steps(self) -> tuple[int | Triple, ...]:
        """The stride of each stage."""
        return self.strides or (1,) + (2,) * (STAGES[self.size] - 1)

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        n = STAGES[self.size]
        return ResEncoder(
            CHANNELS[:n], self.steps, BLOCKS[:n], in_channels, self.norm, True, self.kernels, self.input_mean_std
        )

"""nnU-Net's residual encoders, whose widths and depths follow a rule, so that published weights fit."""

from typing import Literal

from pydantic import Field, model_validator

from medssl.nn import norms
from medssl.nn.encoders.base import Choice, Encoder, check_levels
from medssl.nn.encoders.residual import ResEncoder
from medssl.nn.executor import Triple

CHANNELS = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)
STAGES = {"S": 4, "M": 5, "L": 6}


class Config(Choice):
    """By its stages: widths double from 32 up to 320, and the blocks of a stage are 1, 3, 4, then 6.

    Isensee et al., nnU-Net Revisited, 2024, https://arxiv.org/abs/2404.09556. L is what OpenMind (Wald et al., 2025,
    https://arxiv.org/abs/2412.17041) published weights of, total stride 32; S and M, of 4 and 5 stages, are for crops
    that do not divide by 32. nnU-Net's own M, L and XL are this network, in patches and batches of three sizes.
    """

    name: Literal["resenc"] = "resenc"
    size: Literal["S", "M", "L"] = "L"
    strides: tuple[int | Triple, ...] = Field((), description="one a stage; () is 1, then 2")
    norm: norms.Norm = "instance"

    @model_validator(mode="after")
    def _levels_agree(self) -> "Config":
        check_levels(CHANNELS[: STAGES[self.size]], self.steps, 1)
        return self

    @property
    def steps(self) -> tuple[int | Triple, ...]:
        """The stride of each stage."""
        return self.strides or (1,) + (2,) * (STAGES[self.size] - 1)

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        n = STAGES[self.size]
        return ResEncoder(CHANNELS[:n], self.steps, BLOCKS[:n], in_channels, self.norm, bias=True)

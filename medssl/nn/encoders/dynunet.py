"""The encoder of MONAI's DynUNet, with its layers and their names.

Isensee et al., "nnU-Net" (2018), https://arxiv.org/abs/1809.10486, as MONAI builds it; with residual blocks by
default, whose shortcut strides where nnU-Net's own residual encoder pools.
"""

import math
from typing import Literal

from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from monai.networks.nets import DynUNet
from pydantic import Field, model_validator
from torch import Tensor

from medssl.nn.encoders.base import Choice, Encoder, check_levels, triples
from medssl.nn.executor import Layout, Triple
from medssl.nn.norms import MonaiNorm, norm_of


class Config(Choice):
    """Widths and strides, one entry a level."""

    name: Literal["dynunet"] = "dynunet"
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=3)
    strides: tuple[int | Triple, ...] = (1, 2, 2, 2)
    norm: MonaiNorm = "instance"
    residual: bool = True

    @model_validator(mode="after")
    def _levels_agree(self) -> "Config":
        check_levels(self.channels, self.strides, 1)
        if max(max(s) for s in triples(self.strides)) > 2:
            raise ValueError(f"strides {self.strides}: MONAI's DynUNet strides by 1 or 2")
        return self

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        return DynEncoder(self, in_channels)


class DynEncoder(Encoder):
    """What DynUNet does before it goes up again; every layer of it can be masked."""

    origin = "monai"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = config.channels
        self.strides = triples(config.strides)
        whole = DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=1,
            kernel_size=[3] * len(self.channels),
            strides=self.strides,
            upsample_kernel_size=self.strides[1:],
            filters=self.channels,
            norm_name=norm_of(config.norm, math.gcd(*self.channels)),
            res_block=config.residual,
        )
        self.input_block = whole.input_block
        self.downsamples = whole.downsamples
        self.bottleneck = whole.bottleneck

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        x = on.enter(x)
        pyramid: list[Tensor] = []
        for block in (self.input_block, *self.downsamples, self.bottleneck):
            x = _run(block, x, on)
            pyramid.append(x)
        return pyramid


def _run(block: UnetBasicBlock | UnetResBlock, x: Tensor, on: Layout) -> Tensor:
    y = block.lrelu(on.norm(block.norm1, on.conv(block.conv1.conv, x)))
    y = on.norm(block.norm2, on.conv(block.conv2.conv, y))
    if isinstance(block, UnetResBlock):
        y = y + (on.norm(block.norm3, on.conv(block.conv3.conv, x)) if block.downsample else x)
    return block.lrelu(y)

"""The encoder of MONAI's DynUNet, with the same layers and state dict keys.

Isensee et al., "nnU-Net" (2018), https://arxiv.org/abs/1809.10486, as implemented by MONAI. Residual blocks are the
default; their shortcut has a strided convolution, unlike nnU-Net's residual encoder, which pools.
"""

import math
from typing import Literal

from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from monai.networks.nets import DynUNet
from pydantic import Field, model_validator
from torch import Tensor

from medssl.nn.encoders.base import BaseEncoderConfig, Encoder, as_triples, check_levels, expand_kernels
from medssl.nn.executor import Executor, Triple
from medssl.nn.norms import MonaiNorm, replace_norms, to_monai_norm


class Config(BaseEncoderConfig):
    """Settings with one entry for each level."""

    name: Literal["dynunet"] = Field("dynunet", description="name of the encoder")
    channels: tuple[int, ...] = Field((16, 32, 64, 128), min_length=3, description="width of each level")
    strides: tuple[int | Triple, ...] = Field(
        (1, 2, 2, 2), description="stride of each level, 1 or 2: one number, or one for each axis"
    )
    kernels: tuple[int | Triple, ...] = Field(
        (), description="kernel of each level: one number, or one for each axis; () is 3 for all"
    )
    norm: MonaiNorm = Field("instance", description="normalisation layer behind each convolution")
    residual: bool = Field(True, description="use residual blocks instead of plain convolutions")

    @model_validator(mode="after")
    def _check_levels(self) -> "Config":
        check_levels(self.channels, self.strides, 1)
        expand_kernels(self.kernels, len(self.channels))
        if max(max(s) for s in as_triples(self.strides)) > 2:
            raise ValueError(f"strides {self.strides}: the strides of MONAI's DynUNet must be 1 or 2")
        return self

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return DynEncoder(self, in_channels)


class DynEncoder(Encoder):
    """The downsampling path of DynUNet; all layers can be masked."""

    upstream = "monai"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = config.channels
        self.strides = as_triples(config.strides)
        self.kernels = expand_kernels(config.kernels, len(config.channels))
        network = DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=1,
            kernel_size=self.kernels,
            strides=self.strides,
            upsample_kernel_size=self.strides[1:],
            filters=self.channels,
            norm_name=to_monai_norm(config.norm, math.gcd(*self.channels)),
            res_block=config.residual,
        )
        self.input_block = network.input_block
        self.downsamples = network.downsamples
        self.bottleneck = network.bottleneck
        replace_norms(self)

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        x = executor.to_features(x)
        pyramid: list[Tensor] = []
        for block in (self.input_block, *self.downsamples, self.bottleneck):
            x = _run_block(block, x, executor)
            pyramid.append(x)
        return pyramid


def _run_block(block: UnetBasicBlock | UnetResBlock, x: Tensor, executor: Executor) -> Tensor:
    y = block.lrelu(executor.norm(block.norm1, executor.conv(block.conv1.conv, x)))
    y = executor.norm(block.norm2, executor.conv(block.conv2.conv, y))
    if isinstance(block, UnetResBlock):
        y = y + (executor.norm(block.norm3, executor.conv(block.conv3.conv, x)) if block.downsample else x)
    return block.lrelu(y)

"""The encoder of MONAI's SegResNet, with the same layers and state dict keys.

Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization" (2018), https://arxiv.org/abs/1810.11654.
"""

from typing import Literal

from jaxtyping import Float
from monai.networks.blocks.segresnet_block import ResBlock
from monai.networks.nets import SegResNet
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.nn.encoders.base import BaseEncoderConfig, Encoder
from medssl.nn.executor import Executor
from medssl.nn.norms import MonaiNorm, replace_norms, to_monai_norm


class Config(BaseEncoderConfig):
    """Settings with the names of MONAI; widths double and resolution halves from level to level."""

    name: Literal["segresnet"] = Field("segresnet", description="name of the encoder")
    init_filters: PositiveInt = Field(16, description="channels of the first level; they double at each level")
    blocks_down: tuple[PositiveInt, ...] = Field(
        (1, 2, 2, 4), min_length=1, description="residual blocks of each level"
    )
    norm: MonaiNorm = Field("group", description="normalisation layer before each convolution")

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return SegResEncoder(self, in_channels)


class SegResEncoder(Encoder):
    """The downsampling path of SegResNet; all layers can be masked."""

    upstream = "monai"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        levels = len(config.blocks_down)
        network = SegResNet(
            in_channels=in_channels,
            init_filters=config.init_filters,
            blocks_down=config.blocks_down,
            blocks_up=(1,) * (levels - 1),
            norm=to_monai_norm(config.norm, config.init_filters),
        )
        self.in_channels = in_channels
        self.channels = tuple(config.init_filters * 2**n for n in range(levels))
        self.strides = ((1, 1, 1),) + ((2, 2, 2),) * (levels - 1)
        self.convInit = network.convInit
        self.down_layers = network.down_layers
        replace_norms(self)

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        x = executor.conv(self.convInit.conv, executor.to_features(x))
        pyramid: list[Tensor] = []
        for down, *blocks in self.down_layers:
            x = executor.conv(down.conv, x) if pyramid else x
            for block in blocks:
                x = _run_block(block, x, executor)
            pyramid.append(x)
        return pyramid


def _run_block(block: ResBlock, x: Tensor, executor: Executor) -> Tensor:
    y = executor.conv(block.conv1.conv, block.act(executor.norm(block.norm1, x)))
    return x + executor.conv(block.conv2.conv, block.act(executor.norm(block.norm2, y)))

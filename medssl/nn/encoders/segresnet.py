"""The encoder of MONAI's SegResNet, with its layers and their names.

Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization" (2018), https://arxiv.org/abs/1810.11654.
"""

from typing import Literal

from jaxtyping import Float
from monai.networks.blocks.segresnet_block import ResBlock
from monai.networks.nets import SegResNet
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.nn.encoders.base import Choice, Encoder
from medssl.nn.executor import Layout
from medssl.nn.norms import MonaiNorm, norm_of


class Config(Choice):
    """MONAI's own settings: widths double and resolution halves from level to level."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: PositiveInt = 16
    blocks_down: tuple[PositiveInt, ...] = Field((1, 2, 2, 4), min_length=1)
    norm: MonaiNorm = "group"

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        return SegResEncoder(self, in_channels)


class SegResEncoder(Encoder):
    """What SegResNet does before it goes up again; every layer of it can be masked."""

    origin = "monai"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        levels = len(config.blocks_down)
        whole = SegResNet(
            in_channels=in_channels,
            init_filters=config.init_filters,
            blocks_down=config.blocks_down,
            blocks_up=(1,) * (levels - 1),
            norm=norm_of(config.norm, config.init_filters),
        )
        self.in_channels = in_channels
        self.channels = tuple(config.init_filters * 2**n for n in range(levels))
        self.strides = ((1, 1, 1),) + ((2, 2, 2),) * (levels - 1)
        self.convInit = whole.convInit
        self.down_layers = whole.down_layers

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        x = on.conv(self.convInit.conv, on.enter(x))
        pyramid: list[Tensor] = []
        for down, *blocks in self.down_layers:
            x = on.conv(down.conv, x) if pyramid else x
            for block in blocks:
                x = _run(block, x, on)
            pyramid.append(x)
        return pyramid


def _run(block: ResBlock, x: Tensor, on: Layout) -> Tensor:
    y = on.conv(block.conv1.conv, block.act(on.norm(block.norm1, x)))
    return x + on.conv(block.conv2.conv, block.act(on.norm(block.norm2, y)))

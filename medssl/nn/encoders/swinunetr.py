"""The encoder of MONAI's SwinUNETR, with its layers and their names.

Hatamizadeh et al., "Swin UNETR" (2022), https://arxiv.org/abs/2201.01266.
"""

from typing import Literal

from jaxtyping import Float
from monai.networks.nets import SwinUNETR
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoders.base import Choice, Encoder
from medssl.nn.executor import Layout

Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class Config(Choice):
    """MONAI's own settings; four stages after patches of two voxels make a total stride of 32."""

    name: Literal["swinunetr"] = "swinunetr"
    feature_size: int = Field(24, ge=12, multiple_of=12)
    depths: Four = (2, 2, 2, 2)
    num_heads: Four = (3, 6, 12, 24)
    window_size: PositiveInt = 7

    def build(self, in_channels: int) -> Encoder:
        """The encoder with fresh weights."""
        return SwinEncoder(self, in_channels)


class SwinEncoder(Encoder):
    """What SwinUNETR does before it goes up again: a Swin transformer, and convolutions about what its stages give.

    The fourth stage reaches the decoder as it is; the others go through a residual block, as in MONAI.
    """

    origin = "monai"
    unmasked = "attention within windows and the convolutions about it"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        whole = SwinUNETR(
            in_channels=in_channels,
            out_channels=1,
            feature_size=config.feature_size,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=config.window_size,
        )
        self.in_channels = in_channels
        self.channels = tuple(config.feature_size * n for n in (1, 1, 2, 4, 8, 16))
        self.strides = ((1, 1, 1),) + ((2, 2, 2),) * 5
        self.swinViT = whole.swinViT
        self.encoder1, self.encoder2, self.encoder3 = whole.encoder1, whole.encoder2, whole.encoder3
        self.encoder4, self.encoder10 = whole.encoder4, whole.encoder10

    def features(self, x: Float[Tensor, "b c i j k"], on: Layout) -> list[Tensor]:
        """Features at every level, as the layout stores them."""
        if max(x.shape[2:]) < 64:
            raise BadInput(f"crop {tuple(x.shape[2:])}: SwinUNETR needs 64 voxels or more along an axis")
        x = on.enter(x)
        stages = self.swinViT(x)
        blocks = (self.encoder2, self.encoder3, self.encoder4)
        finer = [self.encoder1(x), *(block(stage) for block, stage in zip(blocks, stages, strict=False))]
        return [on.enter(level) for level in (*finer, stages[3], self.encoder10(stages[4]))]

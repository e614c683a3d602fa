"""The encoder of MONAI's SwinUNETR, with the same layers and state dict keys.

Hatamizadeh et al., "Swin UNETR" (2022), https://arxiv.org/abs/2201.01266.
"""

from typing import Literal

from jaxtyping import Float
from monai.networks.nets import SwinUNETR
from pydantic import Field, PositiveInt
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoders.base import BaseEncoderConfig, Encoder
from medssl.nn.executor import Executor
from medssl.nn.norms import replace_norms

StageCounts = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class Config(BaseEncoderConfig):
    """Settings with the names of MONAI; a patch embedding of two voxels and four stages have a total stride of 32."""

    name: Literal["swinunetr"] = Field("swinunetr", description="name of the encoder")
    feature_size: int = Field(
        24, ge=12, multiple_of=12, description="width of the patch embedding; it doubles at each stage"
    )
    depths: StageCounts = Field((2, 2, 2, 2), description="transformer blocks of each stage")
    num_heads: StageCounts = Field((3, 6, 12, 24), description="attention heads of each stage")
    window_size: PositiveInt = Field(7, description="side of an attention window in tokens")

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return SwinEncoder(self, in_channels)


class SwinEncoder(Encoder):
    """The downsampling path of SwinUNETR: a Swin transformer with a residual convolution block on each stage.

    As in MONAI, the output of the fourth stage has no such block.
    """

    upstream = "monai"
    unmasked = "the window attention and its convolutions"

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        network = SwinUNETR(
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
        self.swinViT = network.swinViT
        replace_norms(self.swinViT)
        self.encoder1, self.encoder2, self.encoder3 = network.encoder1, network.encoder2, network.encoder3
        self.encoder4, self.encoder10 = network.encoder4, network.encoder10

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        if max(x.shape[2:]) < 64:
            raise BadInput(
                f"crop {tuple(x.shape[2:])}: SwinUNETR needs at least 64 voxels along one axis; use a larger crop"
            )
        x = executor.to_features(x)
        stages = self.swinViT(x)
        blocks = (self.encoder2, self.encoder3, self.encoder4)
        finer = [self.encoder1(x), *(block(stage) for block, stage in zip(blocks, stages, strict=False))]
        return [executor.to_features(level) for level in (*finer, stages[3], self.encoder10(stages[4]))]

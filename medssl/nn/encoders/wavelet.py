"""A residual encoder behind a fixed wavelet transform: a low-pass map and the moduli of seven high-pass maps.

Kinakh, Taran & Voloshynovskiy, "ScatSimCLR: self-supervised contrastive learning with pretext task regularization for
small-scale datasets" (2021), https://arxiv.org/abs/2108.13939, whose network reads a scattering transform: Bruna &
Mallat, "Invariant scattering convolution networks" (2013), https://arxiv.org/abs/1203.1513. Deviation: one scale of the
3D Haar wavelet, whose blocks of 2 x 2 x 2 voxels never read from another patch, instead of Morlet wavelets.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from medssl.nn.encoders.base import Encoder, as_triples
from medssl.nn.encoders.residual import ConvNorm, ResidualLevels, ResidualSettings, activate, run_levels
from medssl.nn.executor import Executor, Triple

NUM_BANDS = 8


class Config(ResidualSettings):
    """Settings with one entry for each level; the levels are those of `residual`."""

    name: Literal["wavelet"] = Field("wavelet", description="name of the encoder")
    channels: tuple[int, ...] = Field((32, 64, 128), min_length=1, description="width of each level")
    strides: tuple[int | Triple, ...] = Field(
        (2, 2, 2),
        description="stride of each level: one number, or one for each axis; the first one is even, since the transform"
        " halves each axis",
    )

    @model_validator(mode="after")
    def _check_first_stride(self) -> "Config":
        if any(side % 2 for side in as_triples(self.strides)[0]):
            raise ValueError(
                f"strides[0] is {self.strides[0]}, but the transform in the first level halves each axis; give it an"
                " even stride, such as 2"
            )
        return self

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return WaveletEncoder(self, in_channels)


class WaveletEncoder(ResidualLevels):
    """A fixed transform, a stem that reads its bands, and residual levels, of which the first one has half a stride."""

    maps_per_channel = NUM_BANDS

    def __init__(self, config: Config, in_channels: int) -> None:
        (i, j, k), *deeper = as_triples(config.strides)
        super().__init__(config, in_channels, [(i // 2, j // 2, k // 2), *deeper])
        width, kernel = config.channels[0], self.kernels[0]
        self.stem = ConvNorm(NUM_BANDS * in_channels, width, config.norm, kernel, bias=config.bias)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        bands = transform_haar(executor.to_features(self.standardize(x)))
        scattered = torch.cat([bands[:, :, :1], bands[:, :, 1:].abs()], 2).flatten(1, 2)
        return run_levels(self.levels, activate(self.stem(scattered, executor)), executor)


def transform_haar(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c 8 p q r"]:
    """Computes the orthonormal 3D Haar transform of each block of 2 x 2 x 2 voxels.

    Sums and differences keep the precision of the input under autocast, in which a convolution would round to bf16
    before it subtracts neighbours.

    Args:
        x: A volume with an even number of voxels along each axis.

    Returns:
        The bands of each channel. Bit 2 of the number of a band is set if it has the difference along axis i, bit 1
        along axis j, bit 0 along axis k; band 0 is the low-pass one. Their sum of squares is that of the volume.
    """
    bands = x[:, :, None]
    for axis in (3, 4, 5):
        even, odd = bands.unflatten(axis, (-1, 2)).unbind(axis + 1)
        bands = torch.stack([even + odd, even - odd], 3).flatten(2, 3)
    return bands * 8**-0.5

"""Alteration: slabs, a frequency band and intensities of a crop are altered at once, and a U-Net restores the crop.

Liu et al., "TERA: self-supervised learning of transformer encoder representation for speech" (2020),
https://arxiv.org/abs/2007.06028, with the slices along an axis in place of time. Deviations: the bands are of spatial
frequency, as in the k-space of MR, where speech has channels of a spectrogram; and the error is divided by that of the
altered crop, so that copying has a loss of 1 whatever was altered.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medssl.data.crops import Crops
from medssl.data.transforms.corruption import drop_band, replace_slabs
from medssl.data.transforms.intensity import draw_uniform
from medssl.nn.collectives import divide_sums, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.objectives.reconstruction.base import RestorationObjective
from medssl.settings import Settings

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Config(Settings):
    """Settings of the alterations."""

    name: Literal["alteration"] = Field("alteration", description="name of the objective")
    slab_fraction: Fraction = Field(
        0.3, description="fraction of the slices along an axis that are replaced; 0 is none"
    )
    slab_voxels: int = Field(4, ge=1, description="slices of a slab")
    band_fraction: Fraction = Field(
        0.2, description="width of the band that is removed, as a fraction of all spatial frequencies; 0 is none"
    )
    noise: float = Field(0.05, ge=0, description="standard deviation of the noise; intensities are 0 to 1")
    seed: int = Field(0, ge=0, description="seed of the alterations")


class Alteration(RestorationObjective):
    """Restores altered crops."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder, config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the absolute error of the restored crops relative to that of the altered ones."""
        target = crops.reconstruction_target().float()
        altered = self.alter(crops.x.flatten(0, 1))
        error = (self.restore(altered).float() - target).abs().sum()
        loss = divide_sums(error, (altered.float() - target).abs().sum(), 1e-3)
        return Step(loss, {"altered": (altered != target).float().mean()})

    def alter(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Alters each crop in a different way; intensities may leave their range."""
        generators = split_generator(self.draws(), len(x))
        return torch.stack([self._alter_crop(crop, generator) for crop, generator in zip(x, generators, strict=True)])

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its altered version and its restoration."""
        x = crops.x[:1, 0]
        altered = self.alter(x)
        return {"input": x[0], "altered": altered[0], "restored": self.restore(altered)[0].float()}

    def _alter_crop(self, x: Float[Tensor, "c i j k"], generator: torch.Generator) -> Float[Tensor, "c i j k"]:
        config = self.config
        if config.band_fraction:
            x = drop_band(x, config.band_fraction, generator)
        if config.slab_fraction:
            x, _ = replace_slabs(x, config.slab_voxels, config.slab_fraction, generator)
        return x + config.noise * 12**0.5 * (draw_uniform(x.shape, x, generator) - 0.5) if config.noise else x

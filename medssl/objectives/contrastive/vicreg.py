"""VICReg on dense embeddings, compared at the same positions in two augmented views, without negatives.

Bardes et al., "VICReg: variance-invariance-covariance regularization for self-supervised learning" (2022),
https://arxiv.org/abs/2105.04906, and "VICRegL" (2022), https://arxiv.org/abs/2210.01571. Deviation: the embeddings are
sampled from a decoded map at points that both views share, so that the decoder is trained as well.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn.collectives import all_gather_rows
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.regions import get_level_channels
from medssl.nn.step import Step
from medssl.objectives.contrastive.base import PointConfig, PointObjective


class Config(PointConfig):
    """Settings of the embeddings and the weights of the three loss terms."""

    name: Literal["vicreg"] = Field("vicreg", description="name of the objective")
    level: int = Field(1, ge=0, description="decoder level of the embeddings; 0 is the finest")
    invariance: float = Field(25.0, ge=0, description="weight of the distance between the embeddings of two views")
    variance: float = Field(25.0, ge=0, description="weight of the hinge loss on the standard deviation of dimensions")
    covariance: float = Field(1.0, ge=0, description="weight of the squared covariances of different dimensions")


class VicReg(PointObjective):
    """Compares dense embeddings of two augmented views without negatives."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder, get_level_channels(config.level, encoder))
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)

    def step(self, crops: Crops) -> Step:
        """Computes the weighted sum of the invariance, variance and covariance terms."""
        config = self.config
        a, b, _ = self.embed_points(crops)
        positive_pairs = a[:, 0].detach(), b[:, 0].detach()
        a, b = a.flatten(0, 1), b.flatten(0, 1)
        invariance = (a - b).square().mean()
        a, b = all_gather_rows(a), all_gather_rows(b)
        variance = (_variance_hinge(a) + _variance_hinge(b)) / 2
        covariance = _off_diagonal_covariance(a) + _off_diagonal_covariance(b)
        loss = config.invariance * invariance + config.variance * variance + config.covariance * covariance
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance, "spread": a.std(0).mean()}
        return Step(loss, {name: value.detach() for name, value in logs.items()}, positive_pairs)

    def compute_maps(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """Returns the maps of a decoder level."""
        return self.decoder(self.encoder(x), self.config.level)[0]

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}


def _variance_hinge(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Returns the mean amount by which the standard deviation of a dimension is below 1."""
    return (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()


def _off_diagonal_covariance(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Returns the sum of the squared covariances of different dimensions, divided by the number of dimensions."""
    with torch.autocast(z.device.type, enabled=False):
        covariance = z.mT.cov()
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]

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
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import all_gather_rows, split_generator
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.norms import LayerNorm
from medssl.nn.regions import get_level_channels, sample_features, sample_matching_points
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """Settings of the embeddings and the weights of the three loss terms."""

    name: Literal["vicreg"] = Field("vicreg", description="name of the objective")
    num_views: Literal[1, 2] = Field(
        1, description="crops of each volume; overlapping crops are matched by patient coordinates"
    )
    level: int = Field(1, ge=0, description="decoder level of the embeddings; 0 is the finest")
    num_points: int = Field(128, ge=2, description="points compared in each crop")
    width: int = Field(128, ge=2, description="dimensions of an embedding")
    invariance: float = Field(25.0, ge=0, description="weight of the distance between the embeddings of two views")
    variance: float = Field(25.0, ge=0, description="weight of the hinge loss on the standard deviation of dimensions")
    covariance: float = Field(1.0, ge=0, description="weight of the squared covariances of different dimensions")
    strength: float = Field(
        1.0, ge=0, le=1, description="strength of the random intensity change between views; 0 is none"
    )
    seed: int = Field(0, ge=0, description="seed of points and intensity changes")


class VicReg(Objective):
    """Compares dense embeddings of two augmented views without negatives."""

    config: Config
    is_contrastive = True
    allows_spatial_augmentation = False

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.views = config.num_views
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        channels, width = get_level_channels(config.level, encoder), config.width
        self.expand = nn.Sequential(nn.Linear(channels, width), LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the weighted sum of the invariance, variance and covariance terms."""
        config = self.config
        a, b = self.embed_pairs(crops)
        positive_pairs = a[:: config.num_points].detach(), b[:: config.num_points].detach()
        invariance = (a - b).square().mean()
        a, b = all_gather_rows(a), all_gather_rows(b)
        variance = (_variance_hinge(a) + _variance_hinge(b)) / 2
        covariance = _off_diagonal_covariance(a) + _off_diagonal_covariance(b)
        loss = config.invariance * invariance + config.variance * variance + config.covariance * covariance
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance, "spread": a.std(0).mean()}
        return Step(loss, {name: value.detach() for name, value in logs.items()}, positive_pairs)

    def embed_pairs(self, crops: Crops) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Returns fp32 embeddings of the same positions in two augmented views of each crop."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        generators = (split_generator(generator, len(x)) for _ in range(2))
        augmented = torch.cat([perturb_intensity(x, each, self.config.strength) for each in generators])
        maps = self.decoder(self.encoder(augmented), self.config.level)[0]
        affine, shape = crops.affine.flatten(0, 1), crops.x.shape[-3:]
        other, points, other_points = sample_matching_points(
            affine, self.views, shape, self.config.num_points, 0.5, generator
        )
        first, second = maps.chunk(2)
        features = [sample_features(first, points, shape), sample_features(second[other], other_points, shape)]
        a, b = self.expand(torch.cat(features).flatten(0, 1)).float().chunk(2)
        return a, b

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

"""The base class of objectives that compare embeddings of the same points in two views."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.norms import LayerNorm
from medssl.nn.regions import sample_features, sample_matching_points
from medssl.objectives.base import Objective, ProjectionHead
from medssl.settings import Settings


class PointConfig(Settings):
    """Settings of the points and of their embeddings."""

    num_views: Literal[1, 2] = Field(
        1, description="crops of each volume; overlapping crops are matched by patient coordinates"
    )
    num_points: int = Field(128, ge=2, description="points compared in each crop")
    width: int = Field(128, ge=2, description="dimensions of an embedding")
    strength: float = Field(
        1.0, ge=0, le=1, description="strength of the random intensity change between views; 0 is none"
    )
    seed: int = Field(0, ge=0, description="seed of points and intensity changes")


class PointObjective(Objective):
    """Embeds the same points of a volume in two augmented views.

    Args:
        config: Settings of the objective.
        encoder: Encoder to train.
        channels: Channels of the maps that `compute_maps` returns.
    """

    config: PointConfig
    is_contrastive = True
    allows_spatial_augmentation = False

    def __init__(self, config: PointConfig, encoder: Encoder, channels: int) -> None:
        super().__init__(config, encoder)
        self.views, width = config.num_views, config.width
        self.expand = nn.Sequential(nn.Linear(channels, width), LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.draws = SeededGenerators(config.seed)

    def compute_maps(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """Returns the feature maps that embeddings are sampled from."""
        raise NotImplementedError

    def projection_head(self) -> ProjectionHead:
        """Returns the layers that expand features to embeddings."""
        return ProjectionHead(self.expand, self.compute_maps)

    def embed_points(
        self, crops: Crops
    ) -> tuple[Float[Tensor, "b r d"], Float[Tensor, "b r d"], Float[Tensor, "b r 3"]]:
        """Returns fp32 embeddings of the same points in two augmented views of each crop, and their voxel indices."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        generators = (split_generator(generator, len(x)) for _ in range(2))
        augmented = torch.cat([perturb_intensity(x, each, self.config.strength) for each in generators])
        maps = self.compute_maps(augmented)
        affine, shape = crops.affine.flatten(0, 1), crops.x.shape[-3:]
        other, points, other_points = sample_matching_points(
            affine, self.views, shape, self.config.num_points, 0.5, generator
        )
        first, second = maps.chunk(2)
        features = [sample_features(first, points, shape), sample_features(second[other], other_points, shape)]
        a, b = self.expand(torch.cat(features)).float().chunk(2)
        return a, b, points

"""VICReg on dense embeddings: the same place in two views looks the same, dimensions spread out and do not repeat.

Bardes et al., "VICReg: variance-invariance-covariance regularization for self-supervised learning" (2022),
https://arxiv.org/abs/2105.04906, and "VICRegL" (2022), https://arxiv.org/abs/2210.01571. Deviation: the embeddings are
those of places common to both views on a decoded map, so that the decoder learns as well.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import vary
from medssl.nn.contrastive_loss import gathered
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.masks import Draws
from medssl.nn.regions import both_views, sample, width_at
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """The three weights, and which places are compared."""

    name: Literal["vicreg"] = "vicreg"
    views: Literal[1, 2] = Field(1, description="crops of a volume; overlapping ones are matched by coordinates")
    level: int = Field(1, ge=0, description="decoded map, 0 is the finest")
    points: int = Field(128, ge=2, description="places compared in each crop")
    width: int = Field(128, ge=2)
    invariance: float = Field(25.0, ge=0)
    variance: float = Field(25.0, ge=0)
    covariance: float = Field(1.0, ge=0)
    strength: float = Field(1.0, ge=0, le=1, description="of the intensity change between two views")
    seed: int = Field(0, ge=0)


class VicReg(Objective):
    """Compares dense embeddings of two views without negatives."""

    config: Config
    compares = True
    turns = False

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.views = config.views
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        inward, width = width_at(config.level, encoder), config.width
        self.expand = nn.Sequential(nn.Linear(inward, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.draws = Draws(config.seed)

    def step(self, crops: Crops) -> Step:
        """Invariance between views, a hinge on every dimension's spread, and decorrelation."""
        a, b = self.pairs(crops)
        each = self.config.points
        pairs = a[::each].detach(), b[::each].detach()
        invariance = (a - b).square().mean()
        a, b = gathered(a), gathered(b)
        variance = (_hinge(a) + _hinge(b)) / 2
        covariance = _off_diagonal(a) + _off_diagonal(b)
        c = self.config
        loss = c.invariance * invariance + c.variance * variance + c.covariance * covariance
        logs = {"invariance": invariance, "variance": variance, "covariance": covariance, "spread": a.std(0).mean()}
        return Step(loss, {name: value.detach() for name, value in logs.items()}, pairs)

    def pairs(self, crops: Crops) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Embeddings of the same places in two looks at every crop, in fp32."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        looks = torch.cat([vary(x, generator, self.config.strength) for _ in range(2)])
        maps = self.decoder(self.encoder(looks), self.config.level)[0]
        affine, shape = crops.affine.flatten(0, 1), crops.x.shape[-3:]
        other, here, there = both_views(affine, self.views, shape, self.config.points, 0.5, generator)
        first, second = maps.chunk(2)
        taken = torch.cat([sample(first, here, shape), sample(second[other], there, shape)]).flatten(0, 1)
        a, b = self.expand(taken).float().chunk(2)
        return a, b

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder and the downstream decoder."""
        return super().transferable() | {"decoder": self.decoder}


def _hinge(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    return (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()


def _off_diagonal(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    with torch.autocast(z.device.type, enabled=False):
        covariance = z.mT.cov()
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]

"""Masked reconstruction with a plain CNN: hidden cells are zeros in the input, and the U-Net rebuilds them.

He et al., "Masked autoencoders are scalable vision learners" (2022), https://arxiv.org/abs/2111.06377; with a dense CNN
in 3D: Wald et al., "An OpenMind for 3D medical vision self-supervised learning" (2025),
https://arxiv.org/abs/2412.17041. Deviation: as in the first paper, each cell is normalised before it is compared.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn import masks
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.executor import enlarge
from medssl.nn.masks import mean_where
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.objectives.spark import enough_cells, normalised
from medssl.settings import Settings


class Config(Settings):
    """How much is hidden."""

    name: Literal["mae"] = "mae"
    ratio: float = Field(0.75, gt=0, lt=1)
    air: float = Field(masks.AIR, ge=0, lt=1)
    seed: int = Field(0, ge=0)


class Mae(Objective):
    """Rebuilds hidden cells, each normalised to mean 0 and variance 1, with an ordinary dense U-Net."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        self.head = Head(encoder.channels[0], encoder.in_channels, encoder.strides[0])
        self.draws = masks.Draws(config.seed)

    def step(self, crops: Crops) -> Step:
        """The squared error on hidden body voxels; 1 is what each cell's own mean would reach."""
        x, whole = crops.x.flatten(0, 1), crops.target()
        visible, body = self.mask(whole)
        target, _, _ = normalised(whole, self.encoder.cell)
        error = (self.rebuild(x, visible).float() - target).square().mean(1, keepdim=True)
        loss = mean_where(error, body & ~visible)
        seen = mean_where(error, body & visible).detach()
        return Step(loss, {"hidden": loss.detach(), "visible": seen, "kept": visible.float().mean()})

    def fits(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Refuses crops of too few cells to hide some of them."""
        enough_cells(x, self.encoder)

    def mask(self, x: Float[Tensor, "b c i j k"]) -> tuple[Bool[Tensor, "b 1 i j k"], Bool[Tensor, "b 1 i j k"]]:
        """Which voxels are visible, and which lie in cells that hold body."""
        self.fits(x)
        size = (x.shape[2], x.shape[3], x.shape[4])
        body = masks.body(x, self.encoder.cell, self.config.air)
        return enlarge(masks.draw(body, self.config.ratio, self.draws()), size), enlarge(body, size)

    def rebuild(self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 i j k"]) -> Float[Tensor, "b c i j k"]:
        """Every voxel from the visible ones, in units of its own cell's normalised intensities."""
        return self.head(self.decoder(self.encoder(torch.where(visible, x, 0)))[0])

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder and the downstream decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """The first crop, what of it was visible, and hidden cells rebuilt with their true mean and spread."""
        x = crops.x[:1, 0]
        visible, _ = self.mask(x)
        _, mean, std = normalised(x, self.encoder.cell)
        rebuilt = torch.where(visible, x, self.rebuild(x, visible).float() * std + mean)
        return {"input": x[0], "visible": torch.where(visible, x, 0)[0], "rebuilt": rebuilt[0]}

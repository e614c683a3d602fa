"""Inpainting and restoration: corrupt a crop in several ways and let the U-Net restore it.

Zhou et al., "Models Genesis" (2021), https://arxiv.org/abs/2004.07882; Pathak et al., "Context encoders" (2016),
https://arxiv.org/abs/1604.07379; Chen et al., "Self-supervised learning for medical image analysis using image context
restoration" (2019), https://doi.org/10.1016/j.media.2019.101539. Deviation: voxels that were left intact count little,
since a loss over the whole volume falls to 0 by copying.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.data.transforms import corruption as corrupt
from medssl.data.transforms.intensity import bend
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.masks import Draws, mean_where
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

Chance = Annotated[float, Field(ge=0, le=1)]
Share = tuple[Chance, Chance]


class Chances(Settings):
    """How probable each corruption of a crop is; 0 turns it off."""

    voxels: Chance = 0.5
    cells: Chance = 0.3
    boxes: Chance = 0.3
    outside: Chance = 0.1
    shuffle: Chance = 0.3
    swap: Chance = 0.3
    bend: Chance = 0.5


class Config(Settings):
    """Which corruptions are drawn, how strong they are, and what an intact voxel counts."""

    name: Literal["inpaint"] = "inpaint"
    chances: Chances = Chances()
    dropped: Share = Field((0.1, 0.7), description="share of voxels, or of cells, that is dropped; drawn per crop")
    boxes: int = Field(4, ge=1)
    block: int = Field(4, ge=2, description="side, in voxels, of the cubes that are dropped, shuffled or swapped")
    moved: Chance = Field(0.3, description="share of the cubes that is shuffled, or swapped")
    intact: float = Field(0.1, ge=0, le=0.1, description="weight of the error on voxels that no corruption touched")
    seed: int = Field(0, ge=0)


class Inpaint(Objective):
    """Restores corrupted crops; the error is a share of the crop's variance, so that 1 is no better than its mean."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        self.head = Head(encoder.channels[0], encoder.in_channels, encoder.strides[0])
        self.draws = Draws(config.seed)

    def step(self, crops: Crops) -> Step:
        """The squared error on touched voxels, and a little of that on intact ones."""
        x, target = crops.x.flatten(0, 1), crops.target()
        broken, touched = self.corrupt(x)
        touched = touched | (x != target).any(1, keepdim=True)
        variance = target.float().var((1, 2, 3, 4), keepdim=True).clamp(min=1e-4)
        error = ((self.restore(broken).float() - target).square() / variance).mean(1, keepdim=True)
        restored, kept = mean_where(error, touched), mean_where(error, ~touched)
        logs = {"restored": restored.detach(), "intact": kept.detach(), "touched": touched.float().mean()}
        return Step(restored + self.config.intact * kept, logs)

    def corrupt(self, x: Float[Tensor, "b c i j k"]) -> tuple[Float[Tensor, "b c i j k"], Bool[Tensor, "b 1 i j k"]]:
        """Each crop broken in its own way, and where; intensities that were only bent do not count as touched."""
        generator = self.draws()
        broken, touched = zip(*(self._break(crop, generator) for crop in x), strict=True)
        return torch.stack(broken), torch.stack(touched)[:, None]

    def restore(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """The crops as they might have been."""
        return self.head(self.decoder(self.encoder(x))[0])

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder and the downstream decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """The first crop, how it was broken, and how it was restored."""
        x = crops.x[:1, 0]
        broken, _ = self.corrupt(x)
        return {"input": x[0], "broken": broken[0], "restored": self.restore(broken)[0].float()}

    def _break(
        self, x: Float[Tensor, "c i j k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "c i j k"], Bool[Tensor, "i j k"]]:
        c, touched = self.config, torch.zeros_like(x[0], dtype=torch.bool)
        if _happens(c.chances.bend, generator):
            x = bend(x, generator)
        cubes = x[0].numel() / c.block**3
        low, high = c.dropped
        share = low + (high - low) * float(torch.rand((), generator=generator))
        ways = (
            (c.chances.shuffle, lambda x: corrupt.shuffle_blocks(x, c.block, c.moved, generator)),
            (c.chances.swap, lambda x: corrupt.swap_blocks(
                x, corrupt.draw_swaps(x.shape[1:], c.block, round(c.moved * cubes / 2), generator))),
            (c.chances.boxes, lambda x: corrupt.fill_boxes(x, c.boxes, False, generator)),
            (c.chances.outside, lambda x: corrupt.fill_boxes(x, c.boxes, True, generator)),
            (c.chances.cells, lambda x: corrupt.drop_cells(x, c.block, share, generator)),
            (c.chances.voxels, lambda x: corrupt.drop_voxels(x, share, generator)),
        )  # fmt: skip
        for chance, way in ways:
            if _happens(chance, generator):
                x, here = way(x)
                touched = touched | here
        return x, touched


def _happens(chance: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < chance

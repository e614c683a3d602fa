"""VolumeFusion: two crops are mixed in random boxes, and the network segments how much of each is in every voxel.

Wang et al., "VolumeFusion: a self-supervised pretraining method for medical image segmentation" (2023),
https://arxiv.org/abs/2306.16925. It trains the encoder and the decoder for segmentation. Deviation: the sides of the
boxes are fractions of the crop instead of voxels, so that they suit any crop.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn.collectives import all_gather_rows, split_generator, take_own_rows
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.losses import dice_ce
from medssl.nn.masks import SeededGenerators
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """Settings of the mixture."""

    name: Literal["volume_fusion"] = Field("volume_fusion", description="name of the objective")
    num_steps: int = Field(4, ge=1, description="a box holds n of `num_steps` parts of the foreground crop")
    num_boxes: tuple[int, int] = Field((10, 40), description="fewest and most boxes in a crop")
    side_fractions: tuple[float, float] = Field(
        (0.08, 0.4), description="shortest and longest side of a box, as a fraction of the crop"
    )
    seed: int = Field(0, ge=0, description="seed of the boxes")

    @model_validator(mode="after")
    def _check_ranges(self) -> "Config":
        if not 1 <= self.num_boxes[0] <= self.num_boxes[1]:
            raise ValueError(f"num_boxes {self.num_boxes}: give the fewest and the most boxes, from 1 on")
        if not 0 < self.side_fractions[0] <= self.side_fractions[1] <= 1:
            raise ValueError(f"side_fractions {self.side_fractions}: give the shortest and the longest side, 0 to 1")
        return self


class VolumeFusion(Objective):
    """Segments the fraction of a foreground crop in each voxel of a mixture with a background crop."""

    config: Config
    views = 2  # so that even a batch of one volume has two crops to mix

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(encoder.channels[0], config.num_steps + 1, encoder.strides[0])
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes soft Dice plus cross-entropy of the fusion levels."""
        x = crops.x.flatten(0, 1)
        mixed, level = self.fuse(x, all_gather_rows(x), self.draws())
        logits = self.head(self.decoder(self.encoder(mixed))[0]).float()
        accuracy = (logits.argmax(1) == level).float().mean()
        return Step(dice_ce(logits, level), {"accuracy": accuracy, "fused": (level > 0).float().mean()})

    def fuse(
        self, x: Float[Tensor, "b c i j k"], partners: Float[Tensor, "n c i j k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c i j k"], Int[Tensor, "b i j k"]]:
        """Mixes each crop with another one.

        Args:
            x: Crops of this process.
            partners: Crops of the global batch, which begins with those of the first process.
            generator: Source of all randomness, with the same state in all processes.

        Returns:
            The mixtures, and the number of parts, out of `num_steps`, that each voxel has of the other crop.
        """
        shift = int(torch.randint(1, max(2, len(partners)), (), generator=generator))
        size, generators = (x.shape[2], x.shape[3], x.shape[4]), split_generator(generator, len(x))
        level = torch.stack([self.draw_levels(size, each) for each in generators]).to(x.device)
        fraction = (level / self.config.num_steps)[:, None].to(x.dtype)
        return x * (1 - fraction) + take_own_rows(partners.roll(shift, 0), len(x)) * fraction, level

    def draw_levels(self, size: tuple[int, int, int], generator: torch.Generator) -> Int[Tensor, "i j k"]:
        """Draws boxes of constant levels; later boxes cover earlier ones, and level 0 surrounds them."""
        config, level = self.config, torch.zeros(size, dtype=torch.int64)
        low, high = config.num_boxes
        count = int(torch.randint(low, high + 1, (), generator=generator))
        shortest, longest = config.side_fractions
        voxels = torch.tensor(size)
        sides = (shortest + (longest - shortest) * torch.rand(count, 3, generator=generator)) * voxels
        sides = sides.round().clamp_min(1).long()
        start = (torch.rand(count, 3, generator=generator) * (voxels - sides + 1)).long()
        values = torch.randint(1, config.num_steps + 1, (count,), generator=generator)
        for (i, j, k), (p, q, r), value in zip(start.tolist(), (start + sides).tolist(), values, strict=True):
            level[i:p, j:q, k:r] = value
        return level

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its mixture, and the fraction of the other crop at each voxel."""
        x = crops.x.flatten(0, 1)
        mixed, level = self.fuse(x, x, self.draws())
        fraction = (level[:1] / self.config.num_steps).expand_as(mixed[0])
        return {"input": crops.x[0, 0], "mixed": mixed[0], "fraction": fraction}

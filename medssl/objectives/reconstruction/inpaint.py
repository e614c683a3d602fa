"""Inpainting and restoration: corrupts crops in several ways and trains a U-Net to restore them.

Zhou et al., "Models Genesis" (2021), https://arxiv.org/abs/2004.07882; Pathak et al., "Context encoders" (2016),
https://arxiv.org/abs/1604.07379; Chen et al., "Self-supervised learning for medical image analysis using image context
restoration" (2019), https://doi.org/10.1016/j.media.2019.101539. Deviation: intact voxels have a small weight, since a
loss over the whole volume could be reduced by copying.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from medssl.data.crops import Crops
from medssl.data.transforms import corruption
from medssl.data.transforms.intensity import warp_intensity
from medssl.nn.collectives import split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import masked_mean
from medssl.nn.step import Step
from medssl.objectives.reconstruction.base import RestorationObjective
from medssl.settings import Settings

Probability = Annotated[float, Field(ge=0, le=1)]
FractionRange = tuple[Probability, Probability]


class CorruptionProbabilities(Settings):
    """The probability of each corruption of a crop; 0 turns it off."""

    voxels: Probability = Field(0.5, description="probability of dropping single voxels")
    cells: Probability = Field(0.3, description="probability of dropping blocks of a regular grid")
    boxes: Probability = Field(0.3, description="probability of filling random boxes with noise")
    outpaint: Probability = Field(0.1, description="probability of filling everything outside random boxes with noise")
    shuffle: Probability = Field(0.3, description="probability of shuffling the voxels within blocks")
    swap: Probability = Field(0.3, description="probability of swapping pairs of blocks")
    nonlinear: Probability = Field(0.5, description="probability of a nonlinear change of all intensities")


class Config(Settings):
    """Settings of the corruptions and of the loss."""

    name: Literal["inpaint"] = Field("inpaint", description="name of the objective")
    probabilities: CorruptionProbabilities = Field(
        CorruptionProbabilities(), description="probability of each corruption of a crop"
    )
    dropped_fraction: FractionRange = Field(
        (0.1, 0.7), description="range of the fraction of voxels or blocks to drop; sampled once for each crop"
    )
    boxes: int = Field(4, ge=1, description="number of random boxes in a crop")
    block: int = Field(4, ge=2, description="side in voxels of the blocks that are dropped, shuffled or swapped")
    swapped_fraction: Probability = Field(0.3, description="fraction of the blocks to shuffle or swap")
    clean_fraction: float = Field(0.1, ge=0, le=0.1, description="weight of the error on voxels without corruption")
    seed: int = Field(0, ge=0, description="seed of the corruptions")


class Inpaint(RestorationObjective):
    """Restores corrupted crops; the error is divided by the variance of the crop, so that predicting its mean has 1."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder, config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on corrupted voxels plus the weighted squared error on intact ones."""
        x, target = crops.x.flatten(0, 1), crops.reconstruction_target()
        corrupted, touched = self.corrupt(x)
        touched = touched | (x != target).any(1, keepdim=True)
        variance = target.float().var((1, 2, 3, 4), keepdim=True).clamp(min=1e-4)
        error = ((self.restore(corrupted).float() - target).square() / variance).mean(1, keepdim=True)
        restored, intact = masked_mean(error, touched), masked_mean(error, ~touched)
        logs = {"restored": restored.detach(), "intact": intact.detach(), "touched": touched.float().mean()}
        return Step(restored + self.config.clean_fraction * intact, logs)

    def corrupt(self, x: Float[Tensor, "b c i j k"]) -> tuple[Float[Tensor, "b c i j k"], Bool[Tensor, "b 1 i j k"]]:
        """Corrupts each crop in a different way.

        Returns:
            The corrupted crops, and which voxels were corrupted: all of them after a nonlinear change of intensities,
            which copying cannot undo.
        """
        generators = split_generator(self.draws(), len(x))
        corrupted, touched = zip(
            *(self._corrupt_crop(crop, generator) for crop, generator in zip(x, generators, strict=True)), strict=True
        )
        return torch.stack(corrupted), torch.stack(touched)[:, None]

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its corrupted version and its restoration."""
        x = crops.x[:1, 0]
        corrupted, _ = self.corrupt(x)
        return {"input": x[0], "broken": corrupted[0], "restored": self.restore(corrupted)[0].float()}

    def _corrupt_crop(
        self, x: Float[Tensor, "c i j k"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "c i j k"], Bool[Tensor, "i j k"]]:
        """Applies each corruption with its probability; the order of random numbers is part of reproducibility."""
        c, touched = self.config, torch.zeros_like(x[0], dtype=torch.bool)
        if _draw_bool(c.probabilities.nonlinear, generator):
            x, touched = warp_intensity(x, generator), ~touched
        blocks = corruption.count_blocks(x.shape[1:], c.block)
        low, high = c.dropped_fraction
        fraction = low + (high - low) * float(torch.rand((), generator=generator))
        corruptions = (
            (c.probabilities.shuffle, lambda x: corruption.shuffle_blocks(x, c.block, c.swapped_fraction, generator)),
            (c.probabilities.swap, lambda x: corruption.swap_blocks(
                x, c.block, corruption.draw_swaps(blocks, round(c.swapped_fraction * blocks / 2), generator))),
            (c.probabilities.boxes, lambda x: corruption.fill_boxes(x, c.boxes, False, generator)),
            (c.probabilities.outpaint, lambda x: corruption.fill_boxes(x, c.boxes, True, generator)),
            (c.probabilities.cells, lambda x: corruption.drop_cells(x, c.block, fraction, generator)),
            (c.probabilities.voxels, lambda x: corruption.drop_voxels(x, fraction, generator)),
        )  # fmt: skip
        for probability, apply in corruptions:
            if _draw_bool(probability, generator):
                x, changed = apply(x)
                touched = touched | changed
        return x, touched


def _draw_bool(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability

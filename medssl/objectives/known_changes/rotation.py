"""Rotation prediction: the network recognises by which of the rotations of a cube a crop was turned.

Gidaris et al., "Unsupervised representation learning by predicting image rotations" (2018),
https://arxiv.org/abs/1803.07728; in 3D: Taleb et al., "3D self-supervised methods for medical imaging" (2020),
https://arxiv.org/abs/2006.03829. Deviations: all rotations of the cube that keep the shape and the spacing of a crop,
instead of 10 fixed ones; and the embedding joins the mean and the maximum of the coarsest map.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops, median_spacing_mm
from medssl.data.transforms.intensity import perturb_intensity
from medssl.errors import BadInput
from medssl.nn.collectives import all_gather_rows, draw_rows, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.self_supervision.rotations import find_shape_preserving, list_rotations, rotate
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

ROTATIONS = tuple(list_rotations())


class Config(Settings):
    """Settings of the rotations."""

    name: Literal["rotation"] = Field("rotation", description="name of the objective")
    num_rotations: int = Field(2, ge=1, le=24, description="different rotations of each crop in a step")
    strength: float = Field(1.0, ge=0, le=1, description="strength of the random intensity change; 0 is none")
    seed: int = Field(0, ge=0, description="seed of rotations and intensity changes")


class Rotation(Objective):
    """Classifies the rotation of each crop from the coarsest features."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels = encoder.channels[-1]
        self.head = nn.Sequential(nn.Linear(2 * channels, channels), nn.GELU(), nn.Linear(channels, len(ROTATIONS)))
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the cross-entropy over the rotations that are possible with crops of this shape and spacing."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        possible = self.find_possible(x, median_spacing_mm(all_gather_rows(crops.affine)))
        target = self.draw_rotations(len(x), possible, generator)
        turned = torch.stack([
            rotate(crop, ROTATIONS[number])
            for crop, numbers in zip(x, target.tolist(), strict=True)
            for number in numbers
        ])  # fmt: skip
        generators = split_generator(generator, len(turned))
        logits = self.classify(perturb_intensity(turned, generators, self.config.strength), possible)
        target = target.flatten().to(logits.device)
        loss = F.cross_entropy(logits, target)
        return Step(loss, {"accuracy": (logits.argmax(1) == target).float().mean()})

    def find_possible(self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float]) -> Bool[Tensor, "n"]:
        """Returns which of the 24 rotations keep shape and spacing; raises BadInput if only the identity does."""
        shape = (x.shape[2], x.shape[3], x.shape[4])
        possible = torch.from_numpy(find_shape_preserving(list(ROTATIONS), shape, spacing_mm))
        if self.config.num_rotations > int(possible.sum()):
            raise BadInput(
                f"num_rotations={self.config.num_rotations}: crops {shape} with a spacing of "
                f"{tuple(round(mm, 2) for mm in spacing_mm)} mm keep their shape in {int(possible.sum())} rotations; "
                "use fewer"
            )
        return possible

    def draw_rotations(
        self, num_crops: int, possible: Bool[Tensor, "n"], generator: torch.Generator
    ) -> Int[Tensor, "m r"]:
        """Draws different rotations for each crop."""
        scores = draw_rows((num_crops, len(possible)), generator).masked_fill(~possible, -1)
        return scores.topk(self.config.num_rotations, dim=1).indices

    def classify(self, x: Float[Tensor, "m c i j k"], possible: Bool[Tensor, "n"]) -> Float[Tensor, "m n"]:
        """Returns the logits of all rotations; impossible ones have a probability of 0."""
        coarsest = self.encoder(x)[-1]
        logits = self.head(torch.cat([coarsest.mean((2, 3, 4)), coarsest.amax((2, 3, 4))], 1)).float()
        return logits.masked_fill(~possible.to(logits.device), float("-inf"))

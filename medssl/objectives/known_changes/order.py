"""Order verification: the network recognises three slabs of a crop as in order, reversed or shuffled.

The pretext task of TOV-VICReg: Goulao and Oliveira, "Pretraining the vision transformer using self-supervised methods
for vision based deep reinforcement learning" (2022), https://arxiv.org/abs/2209.10901, after Misra et al., "Shuffle and
learn" (2016), https://arxiv.org/abs/1603.08561, with slabs along an axis of the body instead of frames of a video. In a
sum with `vicreg` it is TOV-VICReg. Deviations: a third class for reversed slabs; and random gaps between slabs, so that
edges that fit do not give the order away.
"""

from itertools import permutations
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.errors import BadInput
from medssl.nn.collectives import draw_rows, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

IN_ORDER, REVERSED = (0, 1, 2), (2, 1, 0)
SHUFFLED = [order for order in permutations(range(3)) if order not in (IN_ORDER, REVERSED)]
ARRANGEMENTS: tuple[list[tuple[int, ...]], ...] = ([IN_ORDER], [REVERSED], SHUFFLED)
AXES = ("i", "j", "k")


class Config(Settings):
    """Settings of the slabs."""

    name: Literal["order"] = Field("order", description="name of the objective")
    axis: Literal["i", "j", "k"] = Field("k", description="axis of the stored volume along which slabs follow")
    strength: float = Field(1.0, ge=0, le=1, description="strength of the random intensity change of a slab; 0 is none")
    seed: int = Field(0, ge=0, description="seed of slabs, their order and intensity changes")


class Order(Objective):
    """Classifies three slabs of each crop as in order, reversed or shuffled; each slab is encoded by itself."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels = encoder.channels[-1]
        self.head = nn.Sequential(nn.Linear(6 * channels, channels), nn.GELU(), nn.Linear(channels, len(ARRANGEMENTS)))
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the cross-entropy over three arrangements; each crop is shown in all of them."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        slabs = self.cut_slabs(x, generator)
        generators = split_generator(generator, 3 * len(x))
        embedded = self.encode_slabs(perturb_intensity(slabs.flatten(0, 1), generators, self.config.strength))
        embedded = embedded.unflatten(0, (len(x), 3))
        arranged, target = arrange(embedded, generator)
        logits = self.head(arranged.flatten(1)).float()
        accuracy = (logits.argmax(1) == target).float().mean()
        return Step(F.cross_entropy(logits, target), {"accuracy": accuracy})

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops hold fewer than three slabs along the axis."""
        super().check_crop(x)
        self._slab_voxels(x)

    def cut_slabs(self, x: Float[Tensor, "b c i j k"], generator: torch.Generator) -> Float[Tensor, "b s c _ _ _"]:
        """Cuts three slabs of each crop in their order, with random gaps between them."""
        dim, voxels = AXES.index(self.config.axis) + 2, self._slab_voxels(x)
        free = x.shape[dim] - 3 * voxels
        starts = (draw_rows((len(x), 3), generator) * (free + 1)).long().sort(1).values
        starts = starts + voxels * torch.arange(3)
        slabs = [
            torch.stack([crop.narrow(dim - 1, start, voxels) for start in row])
            for crop, row in zip(x, starts.tolist(), strict=True)
        ]
        return torch.stack(slabs)

    def encode_slabs(self, slabs: Float[Tensor, "m c _ _ _"]) -> Float[Tensor, "m d"]:
        """Returns the mean and the maximum of the coarsest features of each slab."""
        coarsest = self.encoder(slabs)[-1]
        return torch.cat([coarsest.mean((2, 3, 4)), coarsest.amax((2, 3, 4))], 1)

    def _slab_voxels(self, x: Float[Tensor, "b c i j k"]) -> int:
        """Returns the thickness of a slab: nearly a third of the crop, a multiple of the encoder's total stride."""
        axis = AXES.index(self.config.axis)
        stride, voxels = self.encoder.patch[axis], x.shape[axis + 2]
        if voxels < 3 * stride:
            raise BadInput(
                f"crop has {voxels} voxels along {self.config.axis}, three slabs need {3 * stride}, the total stride "
                "of the encoder for each; use a larger crop, another objective.axis or fewer stages"
            )
        return voxels // 3 // stride * stride


def arrange(
    embedded: Float[Tensor, "b s d"], generator: torch.Generator
) -> tuple[Float[Tensor, "m s d"], Int[Tensor, "m"]]:
    """Returns the slabs of each crop in order, reversed and shuffled, and the class of each arrangement."""
    arranged = [
        slabs[list(orders[int(draw * len(orders))])]
        for slabs, row in zip(embedded, draw_rows((len(embedded), len(ARRANGEMENTS)), generator), strict=True)
        for orders, draw in zip(ARRANGEMENTS, row, strict=True)
    ]
    target = torch.arange(len(ARRANGEMENTS), device=embedded.device).repeat(len(embedded))
    return torch.stack(arranged), target

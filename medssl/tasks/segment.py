"""Segmentation: every voxel gets a class, learnt from a few labelled volumes."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.inference.sliding_window import slide
from medssl.metrics.overlap import dice
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.losses import Loss, deeply, dice_ce, regions_ce
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task


class Config(Settings):
    """What is learnt of the classes, and how deep the supervision goes."""

    name: Literal["segment"] = "segment"
    supervised: PositiveInt = Field(3, description="how many of the decoder's levels get a loss")
    regions: tuple[tuple[PositiveInt, ...], ...] = Field(
        (), description="unions of classes to learn in place of classes: whole tumour, core = [[1,2,3],[2,3],[3]]"
    )
    balance: float = Field(0.0, ge=0, le=1, description="rare classes in the cross-entropy: 0 as voxels, 1 as classes")
    linear: bool = Field(True, description="tells classes by features before their last activation, which hides half")


class Segment(Task):
    """A U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) on the encoder, with deep supervision.

    With regions it has a sigmoid each, as nnU-Net for nested structures. A class is the set of regions it lies in, so
    that independent regions make its score the sum of their logits, and its probability a softmax over the classes.
    """

    config: Config
    members: Tensor

    def __init__(self, config: Config, encoder: Encoder, classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, classes, crop)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, linear=config.linear)
        out = len(config.regions) or classes
        coarser = encoder.channels[1 : config.supervised]
        self.heads = nn.ModuleList(
            [Head(encoder.channels[0], out, encoder.strides[0]), *(Head(c, out) for c in coarser)]
        )
        self.register_buffer("members", _members(config.regions, classes), persistent=False)

    def step(self, crops: Crops) -> Step:
        """The loss at the finest levels; crops of one volume are crops like any other."""
        maps = self.decoder(self.encoder(crops.x.flatten(0, 1)))
        said = [head(m) for head, m in zip(self.heads, maps, strict=False)]
        loss, finest = deeply(said, crops.labels().flatten(0, 1), self._loss(crops))
        return Step(loss, {"finest": finest})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Softmax of the finest head."""
        said = self.heads[0](self.decoder(self.encoder(x))[0]).float()
        if self.config.regions:
            said = torch.einsum("brijk,nr->bnijk", said, self.members.float())
        return said.softmax(1)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Dice of every class that was drawn in a whole volume, and their mean.

        Of a class that is not there, it is 1 where none is found and 0 otherwise: a healthy volume tells false alarms.
        """
        found = slide(crops.x[0, 0], self.probability, self.crop, device=str(crops.x.device)).argmax(0)
        label = crops.labels()[0, 0].cpu()
        drawn = [n for n in range(1, self.classes) if crops.drawn is None or crops.drawn[0, n]]
        each = {f"dice_{n}": dice(((found == n) & (label >= 0)).numpy(), (label == n).numpy()) for n in drawn}
        mean = sum(each.values()) / max(1, len(each))
        return {name: torch.tensor(value) for name, value in ({"dice": mean} | each).items()}

    def transferable(self) -> dict[str, nn.Module]:
        """Encoder, decoder and heads."""
        return {"encoder": self.encoder, "decoder": self.decoder, "heads": self.heads}

    def _loss(self, crops: Crops) -> Loss:
        drawn = crops.drawn_by_view()
        if self.config.regions:
            return partial(regions_ce, members=self.members, drawn=drawn, balance=self.config.balance)
        return partial(dice_ce, drawn=drawn, balance=self.config.balance)


def _members(regions: tuple[tuple[int, ...], ...], classes: int) -> Bool[Tensor, "n r"]:
    """Which class lies in which region, background in none; classes that no region tells apart are refused.

    A class in no region is background like a gap in the numbers, as 3 is among the 1, 2 and 4 of BraTS.
    """
    inside = [[n in region for region in regions] for n in range(classes)]
    members = torch.tensor(inside, dtype=torch.bool).view(classes, len(regions))
    codes = [tuple(row) for row in members.tolist()]
    alike = [n for n in range(classes) if any(codes[n]) and codes.index(codes[n]) != n]
    beyond = sorted({n for region in regions for n in region if n >= classes})
    if regions and (alike or beyond):
        fault = f"class {beyond[0]} is not there" if beyond else f"nothing tells class {alike[0]} from another"
        raise BadInput(f"task.regions={[list(r) for r in regions]}: {fault}; the classes are 1 to {classes - 1}")
    return members

"""Segmentation: every voxel gets a class, learnt from a few labelled volumes."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.metrics.overlap import dice
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.losses import deeply
from medssl.nn.step import Step
from medssl.predict.sliding import slide
from medssl.settings import Settings
from medssl.tasks.base import Task


class Config(Settings):
    """How deep the supervision goes: how many of the decoder's levels get a loss."""

    name: Literal["segment"] = "segment"
    supervised: int = 3


class Segment(Task):
    """A U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) on the encoder, with deep supervision."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder, classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, classes, crop)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        coarser = encoder.channels[1 : config.supervised]
        self.heads = nn.ModuleList(
            [Head(encoder.channels[0], classes, encoder.strides[0]), *(Head(c, classes) for c in coarser)]
        )

    def step(self, crops: Crops) -> Step:
        """DiceCE at the finest levels; crops of one volume are crops like any other."""
        maps = self.decoder(self.encoder(crops.x.flatten(0, 1)))
        said = [head(m) for head, m in zip(self.heads, maps, strict=False)]
        loss, finest = deeply(said, crops.labels().flatten(0, 1))
        return Step(loss, {"finest": finest})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Softmax of the finest head."""
        return self.heads[0](self.decoder(self.encoder(x))[0]).float().softmax(1)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Dice of every class of a whole volume, and their mean; absent classes are left out of both."""
        found = slide(crops.x[0, 0], self.probability, self.crop, device=str(crops.x.device)).argmax(0)
        label = crops.labels()[0, 0].cpu()
        present = [n for n in range(1, self.classes) if bool((label == n).any())]
        each = {f"dice_{n}": dice((found == n).numpy(), (label == n).numpy()) for n in present}
        mean = sum(each.values()) / max(1, len(each))
        return {name: torch.tensor(value) for name, value in ({"dice": mean} | each).items()}

    def transferable(self) -> dict[str, nn.Module]:
        """Encoder, decoder and heads."""
        return {"encoder": self.encoder, "decoder": self.decoder, "heads": self.heads}

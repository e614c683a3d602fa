"""Detection: lesions, each with a score, learnt from a few labelled volumes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.inference.detector import Detector, numbered
from medssl.inference.lesion_candidates import Candidate
from medssl.metrics.lesions import Scan, cpm, hungarian
from medssl.metrics.overlap import part_iou
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.detection.box_head import BoxHead
from medssl.nn.detection.boxes import Boxes, lesions
from medssl.nn.detection.mining import focal, mined_ce
from medssl.nn.encoder import Encoder
from medssl.nn.executor import Triple
from medssl.nn.losses import dice_ce
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.volume import Volume


class Config(Settings):
    """How lesions are learnt and found."""

    name: Literal["detect"] = "detect"
    route: Literal["voxel", "box", "both"] = Field("voxel", description="peaks of a probability, boxes, or their mean")
    loss: Literal["mined", "focal", "dice_ce"] = Field("mined", description="of voxels; Dice makes scores 0 or 1")
    ratio: PositiveFloat = Field(60.0, description="hard negatives mined for each positive, voxels and anchors alike")
    gamma: PositiveFloat = Field(2.0, description="focal: how little easy voxels count")
    width: PositiveInt = Field(32, description="channels of the box head")
    anchor: PositiveFloat = Field(3.0, description="an anchor's side in strides of its level")
    least: float = Field(0.05, gt=0, lt=1, description="the lowest score of a candidate")


class Detect(Task):
    """A U-Net whose decoder is also a feature pyramid, with a head for voxels, a head for boxes, or both."""

    config: Config
    selects = "found"
    by_part = True

    def __init__(self, config: Config, encoder: Encoder, classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, classes, crop)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        self.levels, strides = _levels(encoder)
        channels = [encoder.channels[n] for n in self.levels]
        self.voxel = Head(encoder.channels[0], classes, encoder.strides[0])
        self.box = BoxHead(channels, strides, classes, config.width, config.anchor, config.ratio)

    def step(self, crops: Crops) -> Step:
        """The losses of the heads that the route takes, added; connected voxels of a class are one lesion."""
        label = crops.labels().flatten(0, 1)
        number, boxes = lesions(label)
        drawn = crops.drawn_by_view()
        maps = self._maps(crops.x.flatten(0, 1))
        losses = {}
        if self.config.route != "box":
            losses["voxel"] = self._voxel_loss(self.voxel(maps[0]), label, number, drawn)
        if self.config.route != "voxel":
            losses["box"] = self.box.loss([maps[n] for n in self.levels], boxes, label, drawn)
        return Step(torch.stack(list(losses.values())).sum(), {name: loss.detach() for name, loss in losses.items()})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Softmax of the voxel head."""
        return self.voxel(self._maps(x)[0]).float().softmax(1)

    def boxes(self, x: Float[Tensor, "b c i j k"]) -> list[Boxes]:
        """What the box head sees in each crop."""
        maps, size = self._maps(x), (x.shape[2], x.shape[3], x.shape[4])
        return self.box.boxes([maps[n] for n in self.levels], size, self.config.least)

    def predictor(self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str = "cpu") -> Detector:
        """How a volume's lesions are found."""
        voxels = () if self.config.route == "box" else (self.probability,)
        boxes = () if self.config.route == "voxel" else (self.boxes,)
        return Detector(voxels, boxes, prepare, self.crop, names, device=device, least=self.config.least)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """`found`: the mean sensitivity at 1/8 to 8 false alarms in this volume; of a healthy one, 1 - its score."""
        names = {value: str(value) for value in range(1, self.classes)}
        detector = self.predictor(lambda volume: volume, names, str(crops.x.device))
        found, _, _ = detector.search(crops.x[0, 0].cpu().numpy())
        told = [one for one in found if crops.drawn is None or crops.drawn[0, one.label]]
        outcome = hungarian(compared(told, crops.labels()[0].cpu()))
        return {"found": torch.tensor(cpm([outcome]) if outcome.ill else 1 - outcome.score)}

    def transferable(self) -> dict[str, nn.Module]:
        """Encoder, decoder and the heads of the route."""
        body: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        heads = {"voxel": self.voxel, "box": self.box}
        return body | {name: head for name, head in heads.items() if self.config.route in (name, "both")}

    def _maps(self, x: Float[Tensor, "b c i j k"]) -> list[Tensor]:
        """Decoded maps; none finer than boxes need, where nothing else needs them."""
        finest = 0 if self.config.route != "box" else len(self.encoder.channels) + self.levels[0]
        return self.decoder(self.encoder(x), finest)

    def _voxel_loss(
        self,
        logits: Float[Tensor, "b n i j k"],
        label: Int[Tensor, "b i j k"],
        lesion: Int[Tensor, "b i j k"],
        drawn: Bool[Tensor, "b n"] | None,
    ) -> Float[Tensor, ""]:
        if self.config.loss == "mined":
            return mined_ce(logits, label, lesion, self.config.ratio, drawn)
        if self.config.loss == "focal":
            return focal(logits, label, self.config.gamma, drawn)
        return dice_ce(logits, label, drawn)


def _levels(encoder: Encoder) -> tuple[list[int], list[Triple]]:
    """The levels whose total stride is 2 to 8, or the coarsest, counted back from that, and these strides."""
    count = len(encoder.strides)
    strides = [np.prod(encoder.strides[: n + 1], axis=0).tolist() for n in range(count)]
    chosen = [n for n, stride in enumerate(strides) if 1.99 < np.prod(stride) ** (1 / 3) < 8.01] or [count - 1]
    return [n - count for n in chosen], [(strides[n][0], strides[n][1], strides[n][2]) for n in chosen]


def compared(found: Sequence[Candidate], label: Int[Tensor, "1 i j k"]) -> Scan:
    """Candidates and drawn lesions by the overlap of their voxels; lesions of another class are no match."""
    number, (boxes,) = lesions(label)
    truth, shape = number[0].numpy(), (label.shape[1], label.shape[2], label.shape[3])
    overlap = np.zeros((len(found), len(boxes.label)))
    shared = part_iou(numbered(found, shape), truth)
    overlap[: len(shared)] = shared
    overlap *= np.equal.outer([one.label for one in found], boxes.label.numpy())
    size = np.bincount(truth.ravel(), minlength=len(boxes.label) + 1)[1:]
    return Scan(np.array([one.score for one in found], float), (size * 6 / np.pi) ** (1 / 3), overlap)

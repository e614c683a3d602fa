"""Detection: lesions, each with a score, learnt from a few labelled volumes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.metrics.lesions import Scan, cpm, hungarian
from medssl.metrics.overlap import part_iou
from medssl.nn.boxes import lesions
from medssl.nn.decoder import Head, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.losses import dice_ce
from medssl.nn.mining import focal, mined_ce
from medssl.nn.step import Step
from medssl.predict.candidates import Candidate
from medssl.predict.detector import Detector, numbered
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.volume import Volume


class Config(Settings):
    """How lesions are learnt and found."""

    name: Literal["detect"] = "detect"
    loss: Literal["mined", "focal", "dice_ce"] = Field("mined", description="of the voxels; Dice makes scores 0 or 1")
    ratio: PositiveFloat = Field(3.0, description="mined: hard negative voxels for each lesion voxel")
    gamma: PositiveFloat = Field(2.0, description="focal: how little easy voxels count")
    least: float = Field(0.05, gt=0, lt=1, description="the lowest score of a candidate")


class Detect(Task):
    """Lesion candidates from a U-Net's probabilities, far below 1/2 too."""

    config: Config
    selects = "found"

    def __init__(self, config: Config, encoder: Encoder, classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, classes, crop)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides)
        self.heads = nn.ModuleList([Head(encoder.channels[0], classes, encoder.strides[0])])

    def step(self, crops: Crops) -> Step:
        """The loss of the voxels; connected voxels of a class are one lesion."""
        label = crops.labels().flatten(0, 1)
        number, _ = lesions(label)
        maps = self.decoder(self.encoder(crops.x.flatten(0, 1)))
        loss = self._voxel_loss(self.heads[0](maps[0]), label, number)
        return Step(loss, {"voxel": loss.detach()})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Softmax of the voxel head."""
        return self.heads[0](self.decoder(self.encoder(x))[0]).float().softmax(1)

    def predictor(self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str = "cpu") -> Detector:
        """How a volume's lesions are found."""
        return Detector((self.probability,), prepare, self.crop, names, device=device, least=self.config.least)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """`found`: the mean sensitivity at 1/8 to 8 false alarms in this volume; of a healthy one, 1 - its score."""
        names = {value: str(value) for value in range(1, self.classes)}
        detector = self.predictor(lambda volume: volume, names, str(crops.x.device))
        found = detector.candidates(detector.probability(crops.x[0, 0].cpu().numpy()))
        outcome = hungarian(compared(found, crops.labels()[0].cpu()))
        value = cpm([outcome]) if outcome.ill else 1 - outcome.score
        return {"found": torch.tensor(value)}

    def transferable(self) -> dict[str, nn.Module]:
        """Encoder, decoder and heads."""
        return {"encoder": self.encoder, "decoder": self.decoder, "heads": self.heads}

    def _voxel_loss(
        self, logits: Float[Tensor, "b n i j k"], label: Int[Tensor, "b i j k"], lesion: Int[Tensor, "b i j k"]
    ) -> Float[Tensor, ""]:
        if self.config.loss == "mined":
            return mined_ce(logits, label, lesion, self.config.ratio)
        return focal(logits, label, self.config.gamma) if self.config.loss == "focal" else dice_ce(logits, label)


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

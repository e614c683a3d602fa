"""Detection task: finds lesions, each with a score."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.inference.detector import Detector, instance_map
from medssl.inference.lesion_candidates import Candidate
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.metrics.lesions import ScanMatches, cpm, match_hungarian
from medssl.metrics.overlap import component_iou
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.detection.box_head import BoxHead
from medssl.nn.detection.boxes import find_lesions
from medssl.nn.detection.mining import focal_loss, hard_negative_ce
from medssl.nn.encoder import Encoder
from medssl.nn.executor import Triple
from medssl.nn.losses import dice_ce
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.volume import Volume


class Config(Settings):
    """Settings of the detection task."""

    name: Literal["detect"] = Field("detect", description="name of the task")
    head: Literal["voxel", "box", "both"] = Field(
        "voxel", description="score lesions by voxel probabilities, by predicted boxes, or by the mean of both"
    )
    loss: Literal["mined", "focal", "dice_ce"] = Field(
        "mined", description="loss of the voxel head: cross-entropy with hard negatives, focal, or Dice + cross-entropy"
    )
    negatives_per_positive: PositiveFloat = Field(
        60.0, description="number of hard negatives per positive, for voxels and for anchors"
    )
    focal_gamma: PositiveFloat = Field(2.0, description="loss=focal: exponent that reduces the weight of easy voxels")
    box_channels: PositiveInt = Field(32, description="number of channels of the box head")
    anchor_size: PositiveFloat = Field(3.0, description="edge length of an anchor in strides of its level")
    min_score: float = Field(0.05, gt=0, lt=1, description="smallest score of a predicted lesion")


class DetectTask(Task):
    """A U-Net with its decoder as feature pyramid, and a head for voxels, a head for boxes, or both."""

    config: Config
    selection_metric = "cpm"
    by_component = True

    def __init__(self, config: Config, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, num_classes, patch_size)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        self.levels, strides = _select_levels(encoder)
        channels = [encoder.channels[n] for n in self.levels]
        self.voxel = SegmentationHead(encoder.channels[0], num_classes, encoder.strides[0])
        self.box = BoxHead(
            channels, strides, num_classes, config.box_channels, config.anchor_size, config.negatives_per_positive
        )

    def step(self, crops: Crops) -> Step:
        """Returns the sum of the losses of the configured heads; connected voxels of one class are one lesion."""
        label = crops.require_label().flatten(0, 1)
        lesion, boxes = find_lesions(label)
        annotated = crops.annotated_per_view()
        maps = self._decode(crops.x.flatten(0, 1))
        losses = {}
        if self.config.head != "box":
            losses["voxel"] = self._voxel_loss(self.voxel(maps[0]), label, lesion, annotated)
        if self.config.head != "voxel":
            losses["box"] = self.box.loss([maps[n] for n in self.levels], boxes, label, annotated)
        return Step(torch.stack(list(losses.values())).sum(), {name: loss.detach() for name, loss in losses.items()})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the softmax of the voxel head."""
        return self.voxel(self._decode(x)[0]).float().softmax(1)

    def boxes(self, x: Float[Tensor, "b c i j k"]) -> tuple[Float[Tensor, "b m n"], Float[Tensor, "b m 6"]]:
        """Returns the scores and the corners of the boxes that the box head predicts in crops, at each anchor."""
        maps = self._decode(x)
        return self.box.predict_boxes([maps[n] for n in self.levels], (x.shape[2], x.shape[3], x.shape[4]))

    def predictor(self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str = "cpu") -> Detector:
        """Returns a function that predicts the lesions of a volume; see `Task.predictor`."""
        voxels = () if self.config.head == "box" else (TorchNetwork(self.probability, device),)
        boxes = () if self.config.head == "voxel" else (TorchNetwork(self.boxes, device),)
        return Detector(voxels, boxes, prepare, self.patch_size, names, min_score=self.config.min_score)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the mean sensitivity at 1/8 to 8 false positives in one volume, as `cpm`.

        For a volume without lesions it is 1 minus the highest score.
        """
        names = {value: str(value) for value in range(1, self.num_classes)}
        detector = self.predictor(lambda volume: volume, names, str(crops.x.device))
        candidates, _, _ = detector.find_candidates(crops.x[0, 0].cpu().numpy())
        scored = [c for c in candidates if crops.annotated is None or crops.annotated[0, c.label]]
        result = match_hungarian(match_candidates(scored, crops.require_label()[0].cpu()))
        return {"cpm": torch.tensor(cpm([result]) if result.has_lesion else 1 - result.score)}

    def transferable(self) -> dict[str, nn.Module]:
        """Returns encoder, decoder and the configured heads."""
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        heads = {"voxel": self.voxel, "box": self.box}
        return parts | {name: head for name, head in heads.items() if self.config.head in (name, "both")}

    def _decode(self, x: Float[Tensor, "b c i j k"]) -> list[Tensor]:
        """Returns the decoder maps; without a voxel head, the finest maps are not computed."""
        finest = 0 if self.config.head != "box" else len(self.encoder.channels) + self.levels[0]
        return self.decoder(self.encoder(x), finest)

    def _voxel_loss(
        self,
        logits: Float[Tensor, "b n i j k"],
        label: Int[Tensor, "b i j k"],
        lesion: Int[Tensor, "b i j k"],
        annotated: Bool[Tensor, "b n"] | None,
    ) -> Float[Tensor, ""]:
        """Returns the configured loss of the voxel head."""
        if self.config.loss == "mined":
            return hard_negative_ce(logits, label, lesion, self.config.negatives_per_positive, annotated)
        if self.config.loss == "focal":
            return focal_loss(logits, label, self.config.focal_gamma, annotated)
        return dice_ce(logits, label, annotated)


def _select_levels(encoder: Encoder) -> tuple[list[int], list[Triple]]:
    """Returns the levels with a total stride of 2 to 8 (or the coarsest), as negative indices, and their strides."""
    count = len(encoder.strides)
    strides = [np.prod(encoder.strides[: n + 1], axis=0).tolist() for n in range(count)]
    levels = [n for n, stride in enumerate(strides) if 1.99 < np.prod(stride) ** (1 / 3) < 8.01] or [count - 1]
    return [n - count for n in levels], [(strides[n][0], strides[n][1], strides[n][2]) for n in levels]


def match_candidates(candidates: Sequence[Candidate], label: Int[Tensor, "1 i j k"]) -> ScanMatches:
    """Returns scores, reference diameters in voxels and the IoU of candidates and reference lesions of one volume.

    The IoU of a candidate and a lesion of different classes is 0.
    """
    lesion, (boxes,) = find_lesions(label)
    reference, shape = lesion[0].numpy(), (label.shape[1], label.shape[2], label.shape[3])
    overlap = np.zeros((len(candidates), len(boxes.label)))
    iou = component_iou(instance_map(candidates, shape), reference)
    overlap[: len(iou)] = iou
    overlap *= np.equal.outer([candidate.label for candidate in candidates], boxes.label.numpy())
    size = np.bincount(reference.ravel(), minlength=len(boxes.label) + 1)[1:]
    return ScanMatches(
        np.array([candidate.score for candidate in candidates], float), (size * 6 / np.pi) ** (1 / 3), overlap
    )

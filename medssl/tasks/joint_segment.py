"""Segmentation whose classes are learnt jointly with how a crop was mirrored or turned.

Lee, Hwang and Shin, "Self-supervised label augmentation via input transformations" (2020),
https://arxiv.org/abs/1910.05872: the network answers with a pair of class and transform for each voxel. It need not
give the same answer for a crop and its mirror image, which augmentation demands although anatomy is not symmetric. In
prediction, each transformed crop is read at the answers of its transform, and the mean of their logits decides.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.collectives import divide_sums
from medssl.nn.decoder import build_deep_heads
from medssl.nn.encoder import Encoder
from medssl.nn.losses import deep_supervision
from medssl.nn.step import Step
from medssl.tasks import segment
from medssl.tasks.segment import SegmentTask


class Config(segment.Config):
    """Settings of the segmentation, and the transforms."""

    name: Literal["joint_segment"] = Field("joint_segment", description="name of the task")  # type: ignore[assignment]
    transform: Literal["mirror", "turns"] = Field(
        "mirror",
        description="mirror: each crop as it is and mirrored left to right, twice the cost of a step; turns: by 0 to 3"
        " quarter turns in the axial plane, four times the cost",
    )

    @model_validator(mode="after")
    def _check_regions(self) -> "Config":
        if self.regions:
            raise ValueError("task.regions: regions are no alternatives of each other; leave them out, or task=segment")
        return self


class JointSegmentTask(SegmentTask):
    """A U-Net with one answer for each pair of transform and class; each crop is learnt under all transforms."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, num_classes, patch_size)
        if config.transform == "turns" and patch_size[0] != patch_size[1]:
            raise BadInput(
                f"task.transform=turns: patch_size {patch_size} is not square in the axial plane, so that a turn does"
                " not keep its shape; give two equal sides, or task.transform=mirror"
            )
        self.num_transforms = 2 if config.transform == "mirror" else 4
        answers, levels = self.num_transforms * num_classes, config.deep_supervision_levels
        self.heads = build_deep_heads(encoder.channels, encoder.strides, answers, levels)

    def step(self, crops: Crops) -> Step:
        """Returns the mean over the transforms of the loss of class and transform."""
        steps = [self._learn_transform(crops, number) for number in range(self.num_transforms)]
        loss, finest = (torch.stack(values).mean() for values in zip(*steps, strict=True))
        return Step(loss, {"finest": finest})

    def compute_logits(self, crops: Crops) -> list[Tensor]:
        """Returns the logits of the classes of each supervised level, from the finest, for crops as they are."""
        return [level[:, : self.num_classes] for level in super().compute_logits(crops)]

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the class probabilities by the mean over the transforms of the logits of the finest head."""
        total = torch.zeros((), device=x.device)
        for number in range(self.num_transforms):
            maps = self.decoder(self.encoder(self.transform_maps(x, number)))
            answers = self.heads[0](maps[0]).float().unflatten(1, (self.num_transforms, self.num_classes))
            total = total + self.transform_maps(answers[:, number], -number)
        return (total / self.num_transforms).softmax(1)

    def transform_maps(self, x: Tensor, number: int) -> Tensor:
        """Applies a transform to the last three axes, or undoes it if its number is negative."""
        if self.config.transform == "mirror":
            return x.flip(-3) if number else x
        return x.rot90(number, (-3, -2))

    def _learn_transform(self, crops: Crops, number: int) -> tuple[Tensor, Tensor]:
        """Returns the loss of crops under a transform, and the detached one of the finest level."""
        x, label = self.transform_maps(crops.x, number), self.transform_maps(crops.require_label(), number)
        levels = super().compute_logits(replace(crops, x=x, label=label))
        class_loss = self._build_loss(crops)

        def loss(answers: Float[Tensor, "b m i j k"], label: Int[Tensor, "b i j k"]) -> Float[Tensor, ""]:
            pairs = answers.float().unflatten(1, (self.num_transforms, self.num_classes))
            recognised = pairs.logsumexp(2).log_softmax(1)[:, number]
            is_known = label >= 0
            missed = divide_sums(-(recognised * is_known).sum(), is_known.sum(), 1)
            return class_loss(pairs[:, number], label) + missed

        return deep_supervision(levels, label.flatten(0, 1), loss)

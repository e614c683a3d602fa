"""A detection head that predicts boxes from the maps of a decoder, and its loss.

The head is a light RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017
(https://arxiv.org/abs/1708.02002). Deviations:

- Each branch has two convolutions instead of four.
- Anchors are assigned to lesions by Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via
  Adaptive Training Sample Selection" (ATSS), CVPR 2020 (https://arxiv.org/abs/1912.02424).
- Hard negatives are mined as in Baumgartner et al., "nnDetection", MICCAI 2021 (https://arxiv.org/abs/2106.00817).
- The box loss adds the GIoU and the error of the offsets, similar to Carion et al., "End-to-End Object Detection with
  Transformers", ECCV 2020 (https://arxiv.org/abs/2005.12872): the GIoU alone has no gradient for a box so large that it
  covers every lesion.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher
from monai.apps.detection.utils.hard_negative_sampler import HardNegativeSampler
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.collectives import divide_sums
from medssl.nn.detection.boxes import Boxes, decode_offsets, encode_offsets, generate_anchors, giou
from medssl.nn.executor import Triple

PRIOR_PROBABILITY = 0.01  # of each class at each anchor of an untrained head
MIN_NEGATIVES = 16  # mined in a crop without lesions


class BoxHead(nn.Module):
    """Predicts the probability of each class and the box offsets at each anchor; all levels share the weights.

    Args:
        channels: Width of each decoder map, fine to coarse.
        strides: Total stride of each map.
        classes: Number of classes with background.
        width: Number of channels of the branches.
        side: Side of the anchors in strides.
        ratio: Number of mined negatives for each positive anchor.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[Triple], classes: int, width: int, side: float, ratio: float
    ) -> None:
        super().__init__()
        self.strides, self.side = tuple(strides), side
        # `lateral`, `sure` and `place` are keys of saved weights.
        self.lateral = nn.ModuleList(nn.Conv3d(c, width, 1) for c in channels)
        self.sure = nn.Sequential(*_build_tower(width), nn.Conv3d(width, classes - 1, 3, padding=1))
        self.place = nn.Sequential(*_build_tower(width), nn.Conv3d(width, 6, 3, padding=1))
        bias = math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY))
        nn.init.constant_(self.sure[-1].bias, bias)  # type: ignore[arg-type]
        nn.init.normal_(self.place[-1].weight, std=0.01)  # type: ignore[arg-type]
        self.match = ATSSMatcher(num_candidates=4, center_in_gt=False)
        # Takes all positives and the negatives with the largest loss, so that the sample is deterministic.
        self.sample = HardNegativeSampler(10**9, 1 / (1 + ratio), min_neg=MIN_NEGATIVES, pool_size=1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "b m n"], Float[Tensor, "b m 6"]]:
        """Returns the logits of the foreground classes and the box offsets of all anchors, fine to coarse."""
        levels = [project(x) for project, x in zip(self.lateral, maps, strict=True)]
        return _flatten_levels([self.sure(x) for x in levels]), _flatten_levels([self.place(x) for x in levels])

    def loss(
        self,
        maps: Sequence[Tensor],
        truth: Sequence[Boxes],
        label: Int[Tensor, "b i j k"],
        annotated: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean over the crops of all processes of the classification and box losses.

        Args:
            maps: Decoder maps, fine to coarse.
            truth: The reference boxes of each crop.
            label: Class of each voxel, negative where unknown.
            annotated: Which classes are annotated in the volume of each crop; the others are ignored. None is all.
        """
        logits, offsets = self(maps)
        levels = self._generate_anchors(label.shape[1:], logits.device)
        anchors, counts = torch.cat(levels), [len(level) for level in levels]
        scored = torch.ones_like(logits[:, 0], dtype=torch.bool) if annotated is None else annotated[:, 1:]
        losses = [
            self._compute_crop_loss(logits[n].float(), offsets[n].float(), anchors, counts, boxes, label[n], scored[n])
            for n, boxes in enumerate(truth)
        ]
        return divide_sums(torch.stack(losses).sum(), torch.tensor(len(losses), device=logits.device), 1)

    def predict_boxes(
        self, maps: Sequence[Tensor], size: Triple
    ) -> tuple[Float[Tensor, "b m n"], Float[Tensor, "b m 6"]]:
        """Returns the score of each foreground class and the corners of the box at each anchor.

        Args:
            maps: Decoder maps, fine to coarse.
            size: Shape of a crop in voxels.
        """
        logits, offsets = self(maps)
        anchors = torch.cat(self._generate_anchors(size, logits.device))
        return logits.float().sigmoid(), decode_offsets(anchors.expand_as(offsets), offsets.float())

    def match_anchors(
        self, corners: Float[Tensor, "r 6"], anchors: Float[Tensor, "m 6"], counts: list[int]
    ) -> Int[Tensor, "m"]:
        """Returns the index of the lesion that each anchor is assigned to, or -1.

        A lesion to which ATSS assigns no anchor gets the anchor with the largest overlap.

        Args:
            corners: The boxes of the lesions.
            anchors: The anchors of all levels.
            counts: Number of anchors of each level.
        """
        overlap, matched = self.match(corners, anchors, counts, 1)
        matched = matched.to(anchors.device)
        for lesion in set(range(len(corners))) - set(matched.tolist()):
            matched[overlap[lesion].argmax()] = lesion
        return matched

    def _generate_anchors(self, size: Sequence[int], device: torch.device) -> list[Float[Tensor, "m 6"]]:
        i, j, k = size
        return [level.to(device) for level in generate_anchors((i, j, k), self.strides, self.side)]

    def _compute_crop_loss(
        self, logits: Float[Tensor, "m n"], offsets: Float[Tensor, "m 6"], anchors: Float[Tensor, "m 6"],
        counts: list[int], truth: Boxes, label: Int[Tensor, "i j k"], scored: Bool[Tensor, "n"],
    ) -> Float[Tensor, ""]:  # fmt: skip
        """Adds the classification loss of positives and of mined negatives, the GIoU loss and the offset loss."""
        matched = self.match_anchors(truth.corners, anchors, counts)
        target = torch.zeros_like(logits)
        index = (matched >= 0).nonzero()[:, 0]
        target[index, truth.label[matched[index]] - 1] = 1
        role = torch.where(matched >= 0, 1, torch.where(_has_known_center(anchors, label), 0, -1))
        positive, negative = self.sample.select_samples_per_img(
            role, logits.detach().masked_fill(~scored, -torch.inf).amax(1)
        )
        bce = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * scored).sum(1)
        corners = truth.corners[matched[index]]
        giou_loss = 1 - giou(decode_offsets(anchors[index], offsets[index]), corners)
        offset_target = encode_offsets(anchors[index], corners)
        offset_loss = F.smooth_l1_loss(offsets[index], offset_target, reduction="none").sum(1)
        return _mean(bce[positive.bool()]) + _mean(bce[negative.bool()]) + _mean(giou_loss) + _mean(offset_loss)


def _build_tower(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(2):
        norm = norms.GroupNorm(math.gcd(8, width), width)
        layers += [nn.Conv3d(width, width, 3, padding=1, bias=False), norm, nn.LeakyReLU(0.01)]
    return layers


def _flatten_levels(levels: Sequence[Tensor]) -> Float[Tensor, "b m n"]:
    """Concatenates the positions of all levels."""
    return torch.cat([x.flatten(2).mT for x in levels], 1)


def _has_known_center(anchors: Float[Tensor, "m 6"], label: Int[Tensor, "i j k"]) -> Bool[Tensor, "m"]:
    """Returns whether the class of the voxel at the center of each anchor is known."""
    i, j, k = ((anchors[:, :3] + anchors[:, 3:]) / 2).long().T
    return label[i, j, k] >= 0


def _mean(values: Float[Tensor, "m"]) -> Float[Tensor, ""]:
    """Returns the mean, or 0 without values."""
    return values.sum() / max(1, len(values))

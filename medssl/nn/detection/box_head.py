"""A head that gives boxes: what every anchor of a pyramid says, the loss on it, and the boxes that come of it.

A light RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (https://arxiv.org/abs/1708.02002),
with two convolutions a branch for four. Which anchor stands for which lesion is decided as by Zhang et al., "Bridging
the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection", CVPR 2020
(https://arxiv.org/abs/1912.02424); negatives are mined, as by Baumgartner et al., "nnDetection", MICCAI 2021
(https://arxiv.org/abs/2106.00817). Where a box lies is judged by its overlap and by its moves, as by Carion et al.,
"End-to-End Object Detection with Transformers", ECCV 2020 (https://arxiv.org/abs/2005.12872): a box grown out of all
bounds covers every lesion, and the overlap alone has no slope there.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher
from monai.apps.detection.utils.hard_negative_sampler import HardNegativeSampler
from monai.data.box_utils import batched_nms, clip_boxes_to_image
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.detection.boxes import Boxes, anchors, giou, moved, moves_to
from medssl.nn.executor import Triple

RARE = 0.01  # what a fresh head says of every anchor
MOST = 100  # boxes of a crop and class that may remain
SAME = 0.22  # overlap from which two boxes of a crop are one lesion
EMPTY = 16  # negatives of a crop without lesions


class BoxHead(nn.Module):
    """Two branches shared by all levels: how sure an anchor is of each class, and how its box lies."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[Triple], classes: int, width: int, side: float, ratio: float
    ) -> None:
        super().__init__()
        self.strides, self.side = tuple(strides), side
        self.lateral = nn.ModuleList(nn.Conv3d(c, width, 1) for c in channels)
        self.sure = nn.Sequential(*_tower(width), nn.Conv3d(width, classes - 1, 3, padding=1))
        self.place = nn.Sequential(*_tower(width), nn.Conv3d(width, 6, 3, padding=1))
        nn.init.constant_(self.sure[-1].bias, math.log(RARE / (1 - RARE)))  # type: ignore[arg-type]
        nn.init.normal_(self.place[-1].weight, std=0.01)  # type: ignore[arg-type]
        self.match = ATSSMatcher(num_candidates=4, center_in_gt=False)
        # Every positive, and the worst negatives alone: which ones does not depend on chance.
        self.sample = HardNegativeSampler(10**9, 1 / (1 + ratio), min_neg=EMPTY, pool_size=1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, "b m n"], Float[Tensor, "b m 6"]]:
        """Logits of the classes but the background, and moves, of all anchors, fine to coarse."""
        level = [one(m) for one, m in zip(self.lateral, maps, strict=True)]
        return _rows([self.sure(x) for x in level]), _rows([self.place(x) for x in level])

    def loss(
        self,
        maps: Sequence[Tensor],
        truth: Sequence[Boxes],
        label: Int[Tensor, "b i j k"],
        drawn: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """How sure the anchors of lesions and the worst others are, and how badly boxes lie: four means, added.

        What an anchor says of a class that was not `drawn` in a crop's volume counts nowhere.
        """
        logits, moves = self(maps)
        by_level = self._anchors(label.shape[1:], logits.device)
        every, counts = torch.cat(by_level), [len(one) for one in by_level]
        told = torch.ones_like(logits[:, 0], dtype=torch.bool) if drawn is None else drawn[:, 1:]
        losses = [
            self._crop_loss(logits[n].float(), moves[n].float(), every, counts, boxes, label[n], told[n])
            for n, boxes in enumerate(truth)
        ]
        return torch.stack(losses).mean()

    def boxes(self, maps: Sequence[Tensor], size: Triple, least: float) -> list[Boxes]:
        """Of every crop the boxes that are at least so sure, inside it, one a lesion, the surest first."""
        logits, moves = self(maps)
        every = torch.cat(self._anchors(size, logits.device))
        said = zip(logits.detach().float().sigmoid(), moves.detach().float(), strict=True)
        return [_kept(p, moved(every, m), size, least) for p, m in said]

    def matched(
        self, corners: Float[Tensor, "r 6"], every: Float[Tensor, "m 6"], counts: list[int]
    ) -> Int[Tensor, "m"]:
        """Which lesion each anchor stands for, or -1; one that the algorithm gives no anchor gets the nearest alike."""
        overlap, matched = self.match(corners, every, counts, 1)
        matched = matched.to(every.device)
        for number in set(range(len(corners))) - set(matched.tolist()):
            matched[overlap[number].argmax()] = number
        return matched

    def _anchors(self, size: Sequence[int], device: torch.device) -> list[Float[Tensor, "m 6"]]:
        i, j, k = size
        return [one.to(device) for one in anchors((i, j, k), self.strides, self.side)]

    def _crop_loss(
        self, logits: Float[Tensor, "m n"], moves: Float[Tensor, "m 6"], every: Float[Tensor, "m 6"],
        counts: list[int], truth: Boxes, label: Int[Tensor, "i j k"], told: Bool[Tensor, "n"],
    ) -> Float[Tensor, ""]:  # fmt: skip
        matched = self.matched(truth.corners, every, counts)
        target = torch.zeros_like(logits)
        mine = (matched >= 0).nonzero()[:, 0]
        target[mine, truth.label[matched[mine]] - 1] = 1
        kind = torch.where(matched >= 0, 1, torch.where(_known(every, label), 0, -1))
        positive, negative = self.sample.select_samples_per_img(
            kind, logits.detach().masked_fill(~told, -torch.inf).amax(1)
        )
        bce = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * told).sum(1)
        corners = truth.corners[matched[mine]]
        worse = 1 - giou(moved(every[mine], moves[mine]), corners)
        away = F.smooth_l1_loss(moves[mine], moves_to(every[mine], corners), reduction="none").sum(1)
        return _mean(bce[positive.bool()]) + _mean(bce[negative.bool()]) + _mean(worse) + _mean(away)


def _tower(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(2):
        norm = norms.GroupNorm(math.gcd(8, width), width)
        layers += [nn.Conv3d(width, width, 3, padding=1, bias=False), norm, nn.LeakyReLU(0.01)]
    return layers


def _rows(levels: Sequence[Tensor]) -> Float[Tensor, "b m n"]:
    return torch.cat([x.flatten(2).mT for x in levels], 1)


def _known(every: Float[Tensor, "m 6"], label: Int[Tensor, "i j k"]) -> Bool[Tensor, "m"]:
    """Whether an anchor's middle lies where the label is known."""
    i, j, k = ((every[:, :3] + every[:, 3:]) / 2).long().T
    return label[i, j, k] >= 0


def _mean(values: Float[Tensor, "m"]) -> Float[Tensor, ""]:
    return values.sum() / max(1, len(values))


def _kept(p: Float[Tensor, "m n"], placed: Float[Tensor, "m 6"], size: Triple, least: float) -> Boxes:
    score, place = p.flatten().topk(min(MOST, p.numel()))
    some = place[score >= least]
    score, label = score[score >= least], some % p.shape[1] + 1
    corners, inside = clip_boxes_to_image(placed[some // p.shape[1]], size)
    score, label = score[inside], label[inside]
    kept = batched_nms(corners, score, label, SAME)
    return Boxes(corners[kept], label[kept], score[kept])

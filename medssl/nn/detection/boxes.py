"""Boxes of lesions, anchors, and the offsets between them.

A box is (low i, low j, low k, high i, high j, high k) in voxels, where `high` is the first voxel behind the box, as in
MONAI. Anchors, matching and negative sampling are MONAI's. MONAI's RetinaNet is not used, since its training requires
torchvision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from scipy import ndimage
from torch import Tensor

from medssl.nn.executor import Triple
from medssl.volume import NEIGHBOURS_26

MAX_LOG_SCALE = 4.0  # of a side of a predicted box relative to its anchor


@dataclass(frozen=True)
class Boxes:
    """The boxes of one crop.

    Attributes:
        corners: Low and high corner of each box in voxels.
        label: Class of each box, from 1.
        score: Score of each box; 1 for a reference box.
    """

    corners: Float[Tensor, "m 6"]
    label: Int[Tensor, "m"]
    score: Float[Tensor, "m"]


def find_lesions(label: Int[Tensor, "b i j k"]) -> tuple[Int[Tensor, "b i j k"], list[Boxes]]:
    """Finds the lesions of each crop: connected voxels of one class, with 26 neighbours.

    Args:
        label: Class of each voxel; 0 is background, negative is unknown.

    Returns:
        The number of the lesion of each voxel, from 1 in each crop, and the boxes of the lesions in the same order.
    """
    crops = [_number_lesions(crop) for crop in label.cpu().numpy()]
    numbers = torch.from_numpy(np.stack([number for number, _ in crops])).to(label.device)
    return numbers, [_to_boxes(rows, label.device) for _, rows in crops]


def generate_anchors(size: Triple, strides: Sequence[Triple], side: float) -> list[Float[Tensor, "m 6"]]:
    """Generates one anchor at the center of each position of each level, in the order i j k.

    Args:
        size: Shape of the crop in voxels.
        strides: Total stride of each level.
        side: Side of the anchors in strides.
    """
    ratios = [((j / i, k / i),) for i, j, k in strides]
    lengths = [(side * (i * j * k) ** (1 / 3),) for i, j, k in strides]
    counts = [[n // s for n, s in zip(size, stride, strict=True)] for stride in strides]
    steps = [[torch.tensor(s) for s in stride] for stride in strides]
    return AnchorGenerator(lengths, ratios).grid_anchors(counts, steps)


def decode_offsets(anchor: Float[Tensor, "*b m 6"], offset: Float[Tensor, "*b m 6"]) -> Float[Tensor, "*b m 6"]:
    """Applies offsets to anchors.

    Args:
        anchor: Boxes in voxels.
        offset: The shift of the center as a fraction of each side, then the logarithm of the scale of each side.
    """
    low, high = anchor.chunk(2, -1)
    shift, log_scale = offset.chunk(2, -1)
    side = high - low
    center = (low + high) / 2 + shift * side
    half = side * log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() / 2
    return torch.cat([center - half, center + half], -1)


def encode_offsets(anchor: Float[Tensor, "m 6"], corners: Float[Tensor, "m 6"]) -> Float[Tensor, "m 6"]:
    """Returns the offsets from anchors to boxes: the inverse of `decode_offsets` up to its limit of the scale."""
    low, high = anchor.chunk(2, -1)
    start, end = corners.chunk(2, -1)
    side = high - low
    shift = ((start + end) - (low + high)) / 2 / side
    return torch.cat([shift, ((end - start) / side).log()], -1)


def giou(a: Float[Tensor, "m 6"], b: Float[Tensor, "m 6"]) -> Float[Tensor, "m"]:
    """Returns the generalised intersection over union of pairs of boxes, from -1 for distant to 1 for equal boxes.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019 (https://arxiv.org/abs/1902.09630). Degenerate
    boxes count as empty and NaN is passed on, so that training never stops here; MONAI's `box_pair_giou` raises an
    error for both, and takes at least twice as long.
    """
    intersection = _box_volume(torch.maximum(a[:, :3], b[:, :3]), torch.minimum(a[:, 3:], b[:, 3:]))
    enclosure = _box_volume(torch.minimum(a[:, :3], b[:, :3]), torch.maximum(a[:, 3:], b[:, 3:]))
    union = _box_volume(a[:, :3], a[:, 3:]) + _box_volume(b[:, :3], b[:, 3:]) - intersection
    return intersection / union.clamp_min(1e-6) - (enclosure - union) / enclosure.clamp_min(1e-6)


def _box_volume(low: Float[Tensor, "m 3"], high: Float[Tensor, "m 3"]) -> Float[Tensor, "m"]:
    return (high - low).clamp_min(0).prod(-1)


def _number_lesions(label: Int[np.ndarray, "i j k"]) -> tuple[Int[np.ndarray, "i j k"], list[tuple[int, ...]]]:
    """Numbers the lesions of one crop and returns a row of box and class for each."""
    numbers = np.zeros(label.shape, np.int64)
    rows: list[tuple[int, ...]] = []
    for value in np.unique(label[label > 0]).tolist():
        components, _ = ndimage.label(label == value, NEIGHBOURS_26)
        numbers += np.where(components > 0, components + len(rows), 0)
        boxes = ndimage.find_objects(components)
        rows += [(*(s.start for s in box), *(s.stop for s in box), value) for box in boxes]
    return numbers, rows


def _to_boxes(rows: list[tuple[int, ...]], device: torch.device) -> Boxes:
    table = torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 7)
    return Boxes(table[:, :6], table[:, 6].long(), torch.ones(len(rows), device=device))

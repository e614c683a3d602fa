"""Boxes in voxel corners, low then high: of the lesions in a crop, and how anchors stand for them.

Anchors, matching and the choice of negatives are MONAI's; its RetinaNet, which trains with torchvision only, is not.
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

GROWTH = 4.0  # the largest logarithm by which a side may change: exp of more is no lesion


@dataclass(frozen=True)
class Boxes:
    """Boxes of one crop, the class of each, counted from 1, and how sure it is: 1 where it was drawn."""

    corners: Float[Tensor, "m 6"]
    label: Int[Tensor, "m"]
    score: Float[Tensor, "m"]


def lesions(label: Int[Tensor, "b i j k"]) -> tuple[Int[Tensor, "b i j k"], list[Boxes]]:
    """The lesions of each crop, numbered from 1, and their boxes: connected voxels of one class are one lesion."""
    found = [_numbered(one) for one in label.cpu().numpy()]
    numbers = torch.from_numpy(np.stack([number for number, _ in found])).to(label.device)
    return numbers, [_boxes(rows, label.device) for _, rows in found]


def anchors(size: Triple, strides: Sequence[Triple], side: float) -> list[Float[Tensor, "m 6"]]:
    """Of every level one box a cell, `side` strides long, about the cell's middle; in the order i j k."""
    ratios = [((j / i, k / i),) for i, j, k in strides]
    lengths = [(side * (i * j * k) ** (1 / 3),) for i, j, k in strides]
    counts = [[n // s for n, s in zip(size, stride, strict=True)] for stride in strides]
    steps = [[torch.tensor(s) for s in stride] for stride in strides]
    return AnchorGenerator(lengths, ratios).grid_anchors(counts, steps)


def moved(anchor: Float[Tensor, "*b m 6"], moves: Float[Tensor, "*b m 6"]) -> Float[Tensor, "*b m 6"]:
    """Anchors shifted by shares of their sides, and grown by powers of e."""
    low, high = anchor.chunk(2, -1)
    shift, growth = moves.chunk(2, -1)
    side = high - low
    middle = (low + high) / 2 + shift * side
    half = side * growth.clamp(-GROWTH, GROWTH).exp() / 2
    return torch.cat([middle - half, middle + half], -1)


def moves_to(anchor: Float[Tensor, "m 6"], corners: Float[Tensor, "m 6"]) -> Float[Tensor, "m 6"]:
    """What moves each anchor onto a box: the inverse of `moved`, for sides that differ by no more than e to GROWTH."""
    low, high = anchor.chunk(2, -1)
    start, end = corners.chunk(2, -1)
    side = high - low
    shift = ((start + end) - (low + high)) / 2 / side
    return torch.cat([shift, ((end - start) / side).log()], -1)


def giou(a: Float[Tensor, "m 6"], b: Float[Tensor, "m 6"]) -> Float[Tensor, "m"]:
    """Generalised overlap of pairs, from -1 for far apart to 1 for the same; boxes that are no boxes count as empty.

    Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019 (https://arxiv.org/abs/1902.09630).
    """
    shared = _volume(torch.maximum(a[:, :3], b[:, :3]), torch.minimum(a[:, 3:], b[:, 3:]))
    around = _volume(torch.minimum(a[:, :3], b[:, :3]), torch.maximum(a[:, 3:], b[:, 3:]))
    either = _volume(a[:, :3], a[:, 3:]) + _volume(b[:, :3], b[:, 3:]) - shared
    return shared / either.clamp_min(1e-6) - (around - either) / around.clamp_min(1e-6)


def _volume(low: Float[Tensor, "m 3"], high: Float[Tensor, "m 3"]) -> Float[Tensor, "m"]:
    return (high - low).clamp_min(0).prod(-1)


def _numbered(label: Int[np.ndarray, "i j k"]) -> tuple[Int[np.ndarray, "i j k"], list[tuple[int, ...]]]:
    """Lesions as numbers, and a row of box and class for each."""
    whole = np.zeros(label.shape, np.int64)
    rows: list[tuple[int, ...]] = []
    for value in np.unique(label[label > 0]).tolist():
        numbered, _ = ndimage.label(label == value, NEIGHBOURS_26)
        whole += np.where(numbered > 0, numbered + len(rows), 0)
        sides = ndimage.find_objects(numbered)
        rows += [(*(s.start for s in side), *(s.stop for s in side), value) for side in sides]
    return whole, rows


def _boxes(rows: list[tuple[int, ...]], device: torch.device) -> Boxes:
    table = torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 7)
    return Boxes(table[:, :6], table[:, 6].long(), torch.ones(len(rows), device=device))

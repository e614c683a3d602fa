"""Boxes in voxel corners, low then high: of the lesions in a crop, and between anchors and what is learnt of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


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

"""Votes: the boxes that networks give in windows of a volume and in mirrors of these, and what they agree on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from medssl.inference.sliding_window import Size, windows
from medssl.inference.test_time_augmentation import View
from medssl.metrics.overlap import box_iou
from medssl.nn.detection.boxes import Boxes

BoxNetwork = Callable[[Float[Tensor, "b c i j k"]], list[Boxes]]
WIDTH = 0.25  # of the bell that makes boxes in the middle of a window count more, in sides of the window


@dataclass(frozen=True, eq=False)
class Votes:
    """Every box said, in voxels of the volume, its class and score, in which window and by whom in there.

    `begin` is where the windows begin, `crop` their size, and `turns` how many had a say in each.
    """

    boxes: Float[np.ndarray, "m 6"]
    label: Int[np.ndarray, "m"]
    score: Float[np.ndarray, "m"]
    window: Int[np.ndarray, "m"]
    turn: Int[np.ndarray, "m"]
    begin: Int[np.ndarray, "w 3"]
    crop: Size
    turns: int

    def of(self, label: int) -> tuple[Float[np.ndarray, "r 6"], Float[np.ndarray, "r"]]:
        """One box and score for each lesion of a class, the surest first."""
        mine = self.label == label
        boxes, window = self.boxes[mine], self.window[mine]
        middle = (boxes[:, :3] + boxes[:, 3:]) / 2
        off_centre = (middle - self.begin[window]) / self.crop - 0.5
        central = np.exp(-0.5 * (off_centre**2).sum(1) / WIDTH**2)
        inside = (middle[:, None] >= self.begin) & (middle[:, None] <= self.begin + np.array(self.crop))
        expected = inside.all(-1).sum(1) * float(self.turns)
        return clustered(boxes, self.score[mine], central, window * self.turns + self.turn[mine], expected)


def vote(
    x: Float32[np.ndarray, "c i j k"],
    networks: Sequence[BoxNetwork],
    views: Sequence[View],
    crop: Size,
    overlap: float,
    batch: int,
    device: str,
) -> Votes:
    """Asks every network in every window and view; windows are never stitched, their boxes are."""
    turns = list(product(networks, views))
    begin: list[Size] = []
    rows: list[np.ndarray] = [np.zeros((0, 10))]
    for corners, voxels in windows(x, crop, overlap, batch):
        for turn, (network, view) in enumerate(turns):
            seen = torch.from_numpy(view.of(voxels.numpy()).copy()).to(device)
            with torch.no_grad():
                said = network(seen)
            rows += [
                _rows(boxes, corner, view, crop, len(begin) + n, turn)
                for n, (boxes, corner) in enumerate(zip(said, corners, strict=True))
            ]
        begin += corners
    table = np.concatenate(rows)
    label, window, turn_of = (table[:, n].astype(int) for n in (7, 8, 9))
    return Votes(table[:, :6], label, table[:, 6], window, turn_of, np.array(begin), crop, len(turns))


def _rows(boxes: Boxes, corner: Size, view: View, crop: Size, window: int, turn: int) -> Float[np.ndarray, "m 10"]:
    """Boxes of a mirrored window as they lie in the volume, each with its score, class, window and turn."""
    low, high = boxes.corners.double().cpu().numpy().reshape(-1, 2, 3).transpose(1, 0, 2)
    for axis in view.axes:
        low[:, axis], high[:, axis] = crop[axis] - high[:, axis], crop[axis] - low[:, axis]
    label = boxes.label.cpu().numpy()
    label = np.array(view.classes)[label] if view.classes and 0 in view.axes else label
    about = np.broadcast_to([window, turn], (len(label), 2))
    return np.column_stack([low + corner, high + corner, boxes.score.double().cpu().numpy(), label, about])


def clustered(
    boxes: Float[np.ndarray, "m 6"],
    scores: Float[np.ndarray, "m"],
    weights: Float[np.ndarray, "m"],
    voters: Int[np.ndarray, "m"],
    expected: Float[np.ndarray, "m"],
    least: float = 0.1,
) -> tuple[Float[np.ndarray, "r 6"], Float[np.ndarray, "r"]]:
    """One box and score a cluster, the surest first: around the best box, all that overlap it by more than `least`.

    A box counts by its score, its overlap with the best, its volume and its `weight`. `voters` says who gave a box and
    `expected` how many could have given one there: whoever did not say anything lowers the score. Boxes without a
    volume are left out.
    """
    sides = boxes[:, 3:] - boxes[:, :3]
    # Ties in the score are broken by the boxes: the order in which they come must not matter.
    order = [n for n in np.lexsort((*boxes.T, -scores)) if (sides[n] > 0).all()]
    boxes, scores, weights, voters, expected = (x[order] for x in (boxes, scores, weights, voters, expected))
    overlap = box_iou(boxes[:, :3], boxes[:, 3:], boxes[:, :3], boxes[:, 3:])
    weights = weights * sides[order].prod(1)
    free, found = np.ones(len(boxes), bool), []
    for n in range(len(boxes)):
        if free[n]:
            mine = free & (overlap[n] > least)
            free &= ~mine
            weight = weights[mine] * overlap[n, mine]
            silent = max(0.0, float(expected[mine].mean()) - len(np.unique(voters[mine])))
            by_score = weight * scores[mine]
            score = by_score.sum() / (weight.sum() + silent * weight.mean())
            found.append((*(by_score @ boxes[mine] / by_score.sum()), score))
    table = np.array(sorted(found, key=lambda row: -row[-1])).reshape(-1, 7)
    return table[:, :6], table[:, 6]

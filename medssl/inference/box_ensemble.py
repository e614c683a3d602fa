"""Collects the boxes that networks predict in windows and mirrored views, and merges them by weighted clustering."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from medssl.inference.sliding_window import Size, apply_network, iterate_windows
from medssl.inference.test_time_augmentation import MirrorView
from medssl.metrics.overlap import box_iou
from medssl.nn.detection.boxes import Boxes

BoxNetwork = Callable[[Float[Tensor, "b c i j k"]], list[Boxes]]
CENTRE_SIGMA = 0.25  # standard deviation of the Gaussian that favours boxes central in their window, in window sides


@dataclass(frozen=True, eq=False)
class BoxVotes:
    """All boxes that the voters predicted; a voter is one network in one view.

    Args:
        boxes: Box corners in voxels of the volume, low then high.
        label: The class of each box.
        score: The score of each box.
        window: The index of the window in which each box was predicted.
        voter: The index of the voter that predicted each box.
        window_start: The first voxel of each window.
        crop: The size of the windows in voxels.
        num_voters: The number of voters in each window.
    """

    boxes: Float[np.ndarray, "m 6"]
    label: Int[np.ndarray, "m"]
    score: Float[np.ndarray, "m"]
    window: Int[np.ndarray, "m"]
    voter: Int[np.ndarray, "m"]
    window_start: Int[np.ndarray, "w 3"]
    crop: Size
    num_voters: int

    def merge_boxes(self, label: int) -> tuple[Float[np.ndarray, "r 6"], Float[np.ndarray, "r"]]:
        """Returns one box and one score for each lesion of a class, in descending order of score."""
        selected = self.label == label
        boxes, window = self.boxes[selected], self.window[selected]
        centre = (boxes[:, :3] + boxes[:, 3:]) / 2
        off_centre = (centre - self.window_start[window]) / self.crop - 0.5
        weights = np.exp(-0.5 * (off_centre**2).sum(1) / CENTRE_SIGMA**2)
        inside = (centre[:, None] >= self.window_start) & (centre[:, None] <= self.window_start + np.array(self.crop))
        expected_votes = inside.all(-1).sum(1) * float(self.num_voters)
        voter_ids = window * self.num_voters + self.voter[selected]
        return cluster_boxes(boxes, self.score[selected], weights, voter_ids, expected_votes)


def collect_boxes(
    x: Float32[np.ndarray, "c i j k"],
    networks: Sequence[BoxNetwork],
    views: Sequence[MirrorView],
    crop: Size,
    overlap: float,
    batch_size: int,
    device: str,
) -> BoxVotes:
    """Runs every network in every window and view; windows are not stitched, their boxes are merged later."""
    voters = list(product(networks, views))
    window_start: list[Size] = []
    rows: list[np.ndarray] = [np.zeros((0, 10))]
    for corners, voxels in iterate_windows(x, crop, overlap, batch_size):
        for voter, (network, view) in enumerate(voters):
            windows = torch.from_numpy(view.apply(voxels.numpy()).copy()).to(device)
            predicted = apply_network(network, windows)
            rows += [
                _to_rows(boxes, corner, view, crop, len(window_start) + n, voter)
                for n, (boxes, corner) in enumerate(zip(predicted, corners, strict=True))
            ]
        window_start += corners
    table = np.concatenate(rows)
    label, window, voter_ids = (table[:, n].astype(int) for n in (7, 8, 9))
    return BoxVotes(table[:, :6], label, table[:, 6], window, voter_ids, np.array(window_start), crop, len(voters))


def _to_rows(
    boxes: Boxes, corner: Size, view: MirrorView, crop: Size, window: int, voter: int
) -> Float[np.ndarray, "m 10"]:
    """Maps boxes of a mirrored window to the volume, as rows of corners, score, class, window and voter."""
    low, high = boxes.corners.double().cpu().numpy().reshape(-1, 2, 3).transpose(1, 0, 2)
    for axis in view.axes:
        low[:, axis], high[:, axis] = crop[axis] - high[:, axis], crop[axis] - low[:, axis]
    label = boxes.label.cpu().numpy()
    label = np.array(view.classes)[label] if view.classes and 0 in view.axes else label
    ids = np.broadcast_to([window, voter], (len(label), 2))
    return np.column_stack([low + corner, high + corner, boxes.score.double().cpu().numpy(), label, ids])


def cluster_boxes(
    boxes: Float[np.ndarray, "m 6"],
    scores: Float[np.ndarray, "m"],
    weights: Float[np.ndarray, "m"],
    voter_ids: Int[np.ndarray, "m"],
    expected_votes: Float[np.ndarray, "m"],
    min_iou: float = 0.1,
) -> tuple[Float[np.ndarray, "r 6"], Float[np.ndarray, "r"]]:
    """Merges overlapping boxes of one class (weighted box clustering).

    A cluster is the best remaining box with all boxes that overlap it by more than `min_iou`. Each box is weighted by
    its score, its overlap with the best box, its volume and its weight. A missing vote counts as a score of 0. Boxes
    without volume are left out.

    Args:
        boxes: Box corners in voxels, low then high.
        scores: The score of each box.
        weights: A further weight of each box.
        voter_ids: Who predicted each box.
        expected_votes: How many voters could have predicted a box at this place.
        min_iou: The intersection over union above which boxes belong together.

    Returns:
        One box and one score per cluster, in descending order of score.
    """
    sides = boxes[:, 3:] - boxes[:, :3]
    # Ties in the score are broken by the corners, so that the order of the input does not matter.
    order = [n for n in np.lexsort((*boxes.T, -scores)) if (sides[n] > 0).all()]
    boxes, scores, weights, voter_ids, expected_votes = (
        x[order] for x in (boxes, scores, weights, voter_ids, expected_votes)
    )
    iou = box_iou(boxes[:, :3], boxes[:, 3:], boxes[:, :3], boxes[:, 3:])
    weights = weights * sides[order].prod(1)
    remaining, merged = np.ones(len(boxes), bool), []
    for n in range(len(boxes)):
        if remaining[n]:
            cluster = remaining & (iou[n] > min_iou)
            remaining &= ~cluster
            weight = weights[cluster] * iou[n, cluster]
            missing_votes = max(0.0, float(expected_votes[cluster].mean()) - len(np.unique(voter_ids[cluster])))
            weighted_scores = weight * scores[cluster]
            score = weighted_scores.sum() / (weight.sum() + missing_votes * weight.mean())
            merged.append((*(weighted_scores @ boxes[cluster] / weighted_scores.sum()), score))
    table = np.array(sorted(merged, key=lambda row: -row[-1])).reshape(-1, 7)
    return table[:, :6], table[:, 6]

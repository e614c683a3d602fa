"""Collects the boxes that networks predict in windows and mirrored views, and merges them by weighted clustering."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int

from medssl.arrays.disk_arrays import release_pages
from medssl.inference.sliding_window import Network, Size, iterate_windows
from medssl.inference.test_time_augmentation import MirrorView
from medssl.metrics.overlap import box_iou

MAX_BOXES = 100  # candidates of a window before non-maximum suppression
NMS_IOU = 0.22  # two boxes of a window with a larger overlap are the same lesion
CENTRE_SIGMA = 0.25  # standard deviation of the Gaussian that favours boxes central in their window, in window sides


@dataclass(frozen=True, eq=False)
class WindowBoxes:
    """The boxes that a network predicts in one window, by decreasing score.

    Args:
        corners: Box corners in voxels, low then high.
        label: The class of each box, from 1.
        score: The score of each box.
    """

    corners: Float[np.ndarray, "m 6"]
    label: Int[np.ndarray, "m"]
    score: Float[np.ndarray, "m"]


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
    networks: Sequence[Network],
    views: Sequence[MirrorView],
    crop: Size,
    overlap: float,
    batch_size: int,
    min_score: float,
) -> BoxVotes:
    """Runs every network in every window and view; windows are not stitched, their boxes are merged later.

    Args:
        x: A prepared volume.
        networks: Networks whose outputs are those of `select_boxes`, of each window.
        views: The mirrored views.
        crop: The size of the windows in voxels.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
        min_score: Boxes with a lower score are left out.
    """
    voters = list(product(networks, views))
    window_start: list[Size] = []
    rows: list[np.ndarray] = [np.zeros((0, 10))]
    for corners, voxels in iterate_windows(x, crop, overlap, batch_size):
        for voter, (network, view) in enumerate(voters):
            scores, boxes = (network.to_host(output) for output in network(view.apply(voxels).copy()))
            for n, corner in enumerate(corners):
                predicted = select_boxes(scores[n], boxes[n], crop, min_score)
                rows.append(_to_rows(predicted, corner, view, crop, len(window_start) + n, voter))
        window_start += corners
        release_pages(x)
    table = np.concatenate(rows)
    label, window, voter_ids = (table[:, n].astype(int) for n in (7, 8, 9))
    return BoxVotes(table[:, :6], label, table[:, 6], window, voter_ids, np.array(window_start), crop, len(voters))


def select_boxes(
    scores: Float32[np.ndarray, "m n"], corners: Float32[np.ndarray, "m 6"], crop: Size, min_score: float
) -> WindowBoxes:
    """Selects the boxes with the largest scores inside a window and removes duplicates.

    Args:
        scores: The score of each foreground class at each anchor.
        corners: The box at each anchor.
        crop: The size of the window in voxels; boxes are clipped to it.
        min_score: Boxes with a lower score are left out.
    """
    index = np.flatnonzero(scores >= min_score)
    index = index[np.argsort(-scores.ravel()[index], kind="stable")[:MAX_BOXES]]
    anchor, label = index // scores.shape[1], index % scores.shape[1] + 1
    boxes = corners[anchor].clip(0, np.tile(np.array(crop, np.float32), 2))
    is_inside = (boxes[:, 3:] - boxes[:, :3] >= 1).all(1)
    boxes, label, score = boxes[is_inside], label[is_inside], scores.ravel()[index][is_inside]
    iou = box_iou(boxes[:, :3], boxes[:, 3:], boxes[:, :3], boxes[:, 3:])
    is_duplicate = np.zeros(len(boxes), bool)
    for n in range(len(boxes)):
        if not is_duplicate[n]:
            is_duplicate[n + 1 :] |= (iou[n, n + 1 :] > NMS_IOU) & (label[n + 1 :] == label[n])
    return WindowBoxes(boxes[~is_duplicate], label[~is_duplicate], score[~is_duplicate])


def _to_rows(
    boxes: WindowBoxes, corner: Size, view: MirrorView, crop: Size, window: int, voter: int
) -> Float[np.ndarray, "m 10"]:
    """Maps boxes of a mirrored window to the volume, as rows of corners, score, class, window and voter."""
    low, high = boxes.corners.astype(float).reshape(-1, 2, 3).transpose(1, 0, 2)
    for axis in view.axes:
        low[:, axis], high[:, axis] = crop[axis] - high[:, axis], crop[axis] - low[:, axis]
    label = np.array(view.classes)[boxes.label] if view.classes and 0 in view.axes else boxes.label
    ids = np.broadcast_to([window, voter], (len(label), 2))
    return np.column_stack([low + corner, high + corner, boxes.score.astype(float), label, ids])


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

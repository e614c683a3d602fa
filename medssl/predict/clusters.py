"""Weighted box clustering: what many windows, mirrors and networks say of one lesion becomes one box.

Jaeger et al., "Retina U-Net: Embarrassingly Simple Exploitation of Segmentation Supervision for Medical Object
Detection", ML4H 2019 (https://arxiv.org/abs/1811.08661).
"""

import numpy as np
from jaxtyping import Float, Int

from medssl.metrics.overlap import box_iou


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

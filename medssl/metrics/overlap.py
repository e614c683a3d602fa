"""Overlap: how far two masks share their voxels."""

import numpy as np
from jaxtyping import Bool, Float, Integer


def dice(predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"]) -> float:
    """Twice the shared voxels over the voxels of both: 1 if both masks are empty, 0 if one is."""
    both = np.count_nonzero(predicted) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(predicted & reference) / both if both else 1.0


def volume_error_ml(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], voxel_ml: float
) -> float:
    """How far apart the two volumes are; without a sign, lest a missed structure and a false alarm cancel out."""
    return abs(np.count_nonzero(predicted) - np.count_nonzero(reference)) * voxel_ml


def box_iou(
    low_a: Float[np.ndarray, "p 3"],
    high_a: Float[np.ndarray, "p 3"],
    low_b: Float[np.ndarray, "r 3"],
    high_b: Float[np.ndarray, "r 3"],
) -> Float[np.ndarray, "p r"]:
    """Intersection over union of every box of one list with every box of another, in the boxes' own unit."""
    low, high = np.maximum(low_a[:, None], low_b[None]), np.minimum(high_a[:, None], high_b[None])
    shared = (high - low).clip(0).prod(-1)
    either = (high_a - low_a).prod(-1)[:, None] + (high_b - low_b).prod(-1)[None] - shared
    return shared / np.where(either > 0, either, 1)


def part_iou(ours: Integer[np.ndarray, "i j k"], theirs: Integer[np.ndarray, "i j k"]) -> Float[np.ndarray, "p r"]:
    """Intersection over union of every numbered part (from 1) of one volume with every one of another."""
    p, r = int(ours.max(initial=0)), int(theirs.max(initial=0))
    pairs = ours.ravel().astype(np.int64) * (r + 1) + theirs.ravel()
    shared = np.bincount(pairs, minlength=(p + 1) * (r + 1)).reshape(p + 1, r + 1)
    either = shared.sum(1)[1:, None] + shared.sum(0)[None, 1:] - shared[1:, 1:]
    return shared[1:, 1:] / np.maximum(either, 1)

"""Computes the overlap of masks, boxes and components."""

import numpy as np
from jaxtyping import Bool, Float, Integer


def dice(predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"]) -> float:
    """Returns the Dice score: 1 if both masks are empty, 0 if one of them is."""
    total = np.count_nonzero(predicted) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(predicted & reference) / total if total else 1.0


def volume_error_ml(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], voxel_ml: float
) -> float:
    """Returns the absolute volume difference in ml; without a sign, errors of opposite sign do not cancel in a mean."""
    return abs(np.count_nonzero(predicted) - np.count_nonzero(reference)) * voxel_ml


def box_iou(
    low_a: Float[np.ndarray, "p 3"],
    high_a: Float[np.ndarray, "p 3"],
    low_b: Float[np.ndarray, "r 3"],
    high_b: Float[np.ndarray, "r 3"],
) -> Float[np.ndarray, "p r"]:
    """Returns the intersection over union of all pairs of boxes from two lists, given by their corners in one unit."""
    low, high = np.maximum(low_a[:, None], low_b[None]), np.minimum(high_a[:, None], high_b[None])
    shared = (high - low).clip(0).prod(-1)
    union = (high_a - low_a).prod(-1)[:, None] + (high_b - low_b).prod(-1)[None] - shared
    return shared / np.where(union > 0, union, 1)


def component_iou(
    predicted: Integer[np.ndarray, "i j k"], reference: Integer[np.ndarray, "i j k"]
) -> Float[np.ndarray, "p r"]:
    """Returns the intersection over union of all pairs of components of two volumes; components are numbered from 1."""
    p, r = int(predicted.max(initial=0)), int(reference.max(initial=0))
    pairs = predicted.ravel().astype(np.int64) * (r + 1) + reference.ravel()
    shared = np.bincount(pairs, minlength=(p + 1) * (r + 1)).reshape(p + 1, r + 1)
    union = shared.sum(1)[1:, None] + shared.sum(0)[None, 1:] - shared[1:, 1:]
    return shared[1:, 1:] / np.maximum(union, 1)

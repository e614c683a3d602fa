"""Ranks unlabelled cases for annotation, so that the labelled cases represent all cases well.

Greedy facility location: Wei, Iyer and Bilmes, Submodularity in Data Subset Selection and Active Learning, 2015,
https://proceedings.mlr.press/v37/wei15.html. With few labels, typical cases are worth more than unusual ones: Hacohen
et al., Active Learning on a Budget, 2022, https://arxiv.org/abs/2202.02794. Deviation: each case is weighted by the
uncertainty of a finetuned network, if there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.inference.predictor import class_entropy
from medssl.inference.sliding_window import Network, Size, iterate_windows, stream_slabs

BATCH_SIZE = 2  # windows; one alone is slow on a CPU
UNCERTAIN_FRACTION = 0.01  # the uncertainty of a case is the mean over this fraction of its most uncertain voxels


@dataclass(frozen=True)
class SelectedCase:
    """A case to annotate.

    Args:
        rank: The rank from 1, the most useful case first.
        case: The id of the case.
        coverage: How well all cases are represented once this case and those of lower rank are labelled, 0 to 1.
        uncertainty: The uncertainty of the network about this case, 0 to 1, if it predicts classes.
        reason: The reason for the choice, in one line.
        slices: The numbers of the slices to annotate, from 1, separated by spaces; empty for the whole case.
    """

    rank: int
    case: str
    coverage: float
    uncertainty: float | None
    reason: str
    slices: str = ""


def rank_cases(
    features: Float[np.ndarray, "m d"],
    uncertainty: Float[np.ndarray, "m"] | None,
    case_ids: Sequence[str],
    num_labelled: int,
    count: int,
) -> list[SelectedCase]:
    """Selects the cases that most improve how well the labelled cases represent all cases.

    The coverage is the weighted mean, over all cases, of the similarity to the nearest labelled or selected case.

    Args:
        features: One feature vector per case, the labelled cases first.
        uncertainty: The weight of each case, if a network provides it.
        case_ids: The id of each case.
        num_labelled: The number of leading rows that are labelled.
        count: The number of cases to select.
    """
    if count > len(case_ids) - num_labelled:
        raise BadInput(
            f"{count} cases were requested, {len(case_ids) - num_labelled} have no label yet; request fewer cases"
        )
    similarity = case_similarity(features)
    weight = np.ones(len(case_ids)) if uncertainty is None else uncertainty / uncertainty.mean()
    nearest = similarity[:, :num_labelled].max(1, initial=0.0)
    selection: list[SelectedCase] = []
    selected_rows: list[int] = []
    for rank in range(1, count + 1):
        gain = (weight[:, None] * np.maximum(similarity - nearest[:, None], 0)).mean(0)
        gain[[*range(num_labelled), *selected_rows]] = -1
        row = int(gain.argmax())
        num_closer = int((similarity[:, row] > nearest).sum()) - 1
        nearest = np.maximum(nearest, similarity[:, row])
        coverage = float((weight * nearest).sum() / weight.sum())
        row_uncertainty = None if uncertainty is None else float(uncertainty[row])
        reason = _explain_rank(num_closer, coverage, len(case_ids), uncertainty, row)
        selection.append(SelectedCase(rank, case_ids[row], coverage, row_uncertainty, reason))
        selected_rows.append(row)
    return selection


def case_similarity(features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """Returns the similarity of every pair of cases, at most 1: a Gaussian as wide as the median distance."""
    scaled = standardize(features)
    length = np.square(scaled).sum(1)
    squared = (length[:, None] + length[None] - 2 * scaled @ scaled.T).clip(0)
    median = np.median(squared[~np.eye(len(squared), dtype=bool)]) if len(squared) > 1 else 1.0
    return np.exp(-squared / max(float(median), 1e-12))


def standardize(features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """Returns features with mean 0 and standard deviation 1 over the cases; a constant feature becomes 0."""
    return (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)


def case_embedding(x: Float[np.ndarray, "c i j k"], encoder: Network, crop: Size) -> Float[np.ndarray, "d"]:
    """Returns the mean and standard deviation of a case's features over adjacent windows.

    Args:
        x: A prepared volume.
        encoder: Returns the coarsest feature map of a window.
        crop: The size of the windows in voxels.
    """
    maps = [
        features.reshape(len(features), -1)
        for _, windows in iterate_windows(x, crop, 0.0, BATCH_SIZE)
        for features in encoder.to_host(encoder(windows))
    ]
    features = np.concatenate(maps, axis=1)
    return np.concatenate([features.mean(1), features.std(1)]).astype(float)


def select_slices(x: Float[np.ndarray, "c i j k"], encoder: Network, crop: Size, axis: int, count: int) -> list[int]:
    """Returns the slices of a case that represent all of its slices best, as `rank_cases` does with cases, in order.

    Args:
        x: A prepared volume.
        encoder: Returns the coarsest feature map of a window.
        crop: The size of the windows in voxels.
        axis: The axis across the slices.
        count: The number of slices.
    """
    length = x.shape[1 + axis]
    if not 1 <= count <= length:
        raise BadInput(
            f"{count} slices were requested of a case with {length}; request at least 1 and at most {length}"
        )
    cells: dict[float, list[Float[np.ndarray, "d m"]]] = {}
    for corners, windows in iterate_windows(x, crop, 0.0, BATCH_SIZE):
        for corner, features in zip(corners, encoder.to_host(encoder(windows)), strict=True):
            layers = np.moveaxis(features, 1 + axis, 0)
            for n, layer in enumerate(layers):
                place = corner[axis] + (n + 0.5) * crop[axis] / len(layers) - 0.5
                cells.setdefault(place, []).append(layer.reshape(len(layer), -1))
    places = sorted(cells)
    layers = [np.concatenate(cells[place], axis=1) for place in places]
    profile = np.stack([np.concatenate([layer.mean(1), layer.std(1)]) for layer in layers]).astype(float)
    features = np.stack([np.interp(np.arange(length), places, column) for column in profile.T], axis=1)
    ranking = rank_cases(features, None, [str(n) for n in range(length)], 0, count)
    return sorted(int(row.case) for row in ranking)


def case_uncertainty(x: Float[np.ndarray, "c i j k"], network: Network, crop: Size) -> float:
    """Returns the mean entropy of a case's most uncertain voxels, as a fraction of the largest possible entropy."""
    entropies = [
        class_entropy(slab).ravel() / np.log(len(slab)) for slab in stream_slabs(x, network, crop, 0.25, BATCH_SIZE)
    ]
    voxels = np.sort(np.concatenate(entropies))
    return float(voxels[-max(1, round(UNCERTAIN_FRACTION * len(voxels))) :].mean())


def _explain_rank(
    num_closer: int, coverage: float, num_cases: int, uncertainty: Float[np.ndarray, "m"] | None, row: int
) -> str:
    """Returns the reason for selecting a case, in one line."""
    reason = f"closer to {num_closer} of {num_cases - 1} other cases than any labelled one; coverage {coverage:.2f}"
    if uncertainty is None:
        return reason
    num_below = int((uncertainty < uncertainty[row]).sum())
    return f"{reason}; more uncertain than {num_below} of {num_cases - 1} other cases"

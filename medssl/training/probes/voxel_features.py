"""Samples frozen features at labelled voxels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.regions import sample_features


def flatten_labels(crops: Crops) -> Int[Tensor, "n i j k"]:
    """Returns the labels of all views, or raises BadInput if the crops have none."""
    if crops.label is None:
        raise BadInput("the dense probe needs labelled crops, and these have no labels; give a manifest with labels")
    return crops.label.flatten(0, 1)


def select_voxels(y: Int[Tensor, "n i j k"], classes: Int[Tensor, "l"], points: int) -> Int[Tensor, "m 4"]:
    """Returns up to `points` evenly spaced voxels of each class as rows of crop, i, j, k, in the order of the crops."""
    samples = []
    for value in classes:
        voxels = (y == value).nonzero()
        rows = torch.linspace(0, len(voxels) - 1, min(points, len(voxels)), device=y.device).long()
        samples.append(voxels[rows])
    index = torch.cat(samples)
    return index[index[:, 0].argsort(stable=True)]


def sample_levels(
    pyramid: list[Tensor], index: Int[Tensor, "m 4"], shape: tuple[int, ...]
) -> list[Float[Tensor, "m _"]]:
    """Returns the features of each level, interpolated at voxels.

    Args:
        pyramid: Feature maps of n crops, fine to coarse.
        index: Rows of crop, i, j, k in the order of the crops.
        shape: Shape of a crop in voxels.
    """
    points = [index[index[:, 0] == n, 1:].float()[None] for n in range(len(pyramid[0]))]
    return [
        torch.cat([sample_features(level[n : n + 1], each, shape)[0] for n, each in enumerate(points)])
        for level in pyramid
    ]

"""Parcels: voxels of similar intensity, which stand for anatomy where there are no labels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

HISTOGRAM_BINS = 128  # over the range of the intensities
KMEANS_ROUNDS = 10


def cluster_intensities(values: Float[Tensor, "n"], count: int) -> Int[Tensor, "n"]:
    """Divides values into at most `count` clusters by k-means on their histogram.

    Returns:
        The cluster of each value, numbered from 0 in the order of the intensities; all 0 if the values are equal.
    """
    low, high = values.min(), values.max()
    if count == 1 or high - low < 1e-6:
        return torch.zeros_like(values, dtype=torch.int64)
    bins = ((values - low) / (high - low) * (HISTOGRAM_BINS - 1)).round().long()
    weights = bins.bincount(minlength=HISTOGRAM_BINS).double()
    positions = torch.arange(HISTOGRAM_BINS, dtype=torch.float64)
    ranks = weights.cumsum(0) / weights.sum()
    centres = torch.searchsorted(ranks, (torch.arange(count, dtype=torch.float64) + 0.5) / count).double().unique()
    for _ in range(KMEANS_ROUNDS):
        nearest = (positions[:, None] - centres).abs().argmin(1)
        shares = torch.zeros(len(centres), dtype=torch.float64).index_add_(0, nearest, weights)
        totals = torch.zeros(len(centres), dtype=torch.float64).index_add_(0, nearest, weights * positions)
        centres = torch.where(shares > 0, totals / shares.clamp(min=1e-9), centres).sort().values
    return (positions[:, None] - centres).abs().argmin(1)[bins].unique(return_inverse=True)[1]

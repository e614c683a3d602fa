"""A contrastive loss that sorts: all positives are to be nearer than all negatives, by however little.

Shvetsova et al., "Learning by sorting: self-supervised learning with group ordering constraints" (2023),
https://arxiv.org/abs/2301.02009, with the differentiable odd-even sort of Petersen et al., "Monotonic differentiable
sorting networks" (2022), https://arxiv.org/abs/2203.09630. Deviations: only the farthest positives and the nearest
negatives of an embedding are sorted, because the cost grows with the square of their number; and both groups have the
same weight, however many negatives there are.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from medssl.nn.collectives import divide_sums

NUM_POSITIVES, NUM_NEGATIVES = 16, 48
BEHIND_ALL = 4.0  # distance of the places that are not filled; cosine distances end at 2


def sorting_loss(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    positive: Bool[Tensor, "*g n m"],
    ignore: Bool[Tensor, "*g n m"],
    steepness: float,
) -> Float[Tensor, ""]:
    """Returns the mean cross-entropy of being sorted into the right group, over embeddings of all processes.

    Args:
        q: Embeddings that the others are sorted for.
        k: Embeddings to sort, by their cosine distance.
        positive: Which pairs are positive.
        ignore: Which pairs are ignored; the remaining ones are negative.
        steepness: How sharply distances are compared; at infinity, the sort is exact.
    """
    with torch.autocast(q.device.type, enabled=False):
        distance = 1 - F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT
        distance, positive, ignore = (x.flatten(0, -2) for x in (distance, positive, ignore))
        scored = positive & ~ignore
        near = _select(distance, scored, NUM_POSITIVES, largest=True)
        far = _select(distance, ~positive & ~ignore, NUM_NEGATIVES, largest=False)
        values, is_filled = (torch.cat(pair, 1) for pair in zip(near, far, strict=True))
        is_near = torch.arange(values.shape[1], device=values.device) < near[0].shape[1]
        count = (is_filled & is_near).sum(1)
        p = compute_group_probability(values, count, steepness).clamp(1e-6, 1 - 1e-6)
        error = [
            (-log * where).sum(1) / where.sum(1).clamp_min(1)
            for log, where in ((p.log(), is_filled & is_near), ((1 - p).log(), is_filled & ~is_near))
        ]
        return divide_sums((sum(error) * (count > 0)).sum(), (count > 0).sum(), 1)


def compute_group_probability(
    values: Float[Tensor, "n m"], count: Int[Tensor, "n"], steepness: float
) -> Float[Tensor, "n m"]:
    """Returns the probability that a soft odd-even sort moves each value among the `count` smallest of its row.

    A comparator exchanges two neighbours in part, by the distribution function of Cauchy of their difference. Sorting
    is a product of such symmetric steps, so the same steps, applied in reverse to the places of the first group, tell
    how much of each value arrives there.
    """
    comparisons = []
    for layer in range(values.shape[1]):
        first, second = _split_pairs(values, layer % 2)
        stay = 0.5 + (steepness * (second - first)).atan() / math.pi
        comparisons.append(stay)
        values = _exchange(values, stay, layer % 2)
    places = torch.arange(values.shape[1], device=values.device)
    group = (places < count[:, None]).to(values.dtype)
    for layer in reversed(range(values.shape[1])):
        group = _exchange(group, comparisons[layer], layer % 2)
    return group


def _exchange(values: Float[Tensor, "n m"], stay: Float[Tensor, "n p"], start: int) -> Float[Tensor, "n m"]:
    first, second = _split_pairs(values, start)
    pairs = torch.stack([stay * first + (1 - stay) * second, stay * second + (1 - stay) * first], 2).flatten(1)
    return torch.cat([values[:, :start], pairs, values[:, start + pairs.shape[1] :]], 1)


def _split_pairs(values: Float[Tensor, "n m"], start: int) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"]]:
    num_pairs = (values.shape[1] - start) // 2
    pairs = values[:, start : start + 2 * num_pairs].unflatten(1, (num_pairs, 2))
    return pairs[..., 0], pairs[..., 1]


def _select(
    distance: Float[Tensor, "n m"], where: Bool[Tensor, "n m"], count: int, largest: bool
) -> tuple[Float[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Returns the extreme distances of each row where a mask is true, and which places are filled."""
    keys = distance.masked_fill(~where, -BEHIND_ALL if largest else BEHIND_ALL)
    indices = keys.topk(min(count, keys.shape[1]), 1, largest=largest).indices
    is_filled = where.gather(1, indices)
    return distance.gather(1, indices).masked_fill(~is_filled, BEHIND_ALL), is_filled

"""The contrastive loss (InfoNCE) in matrix form, from masks of positive and ignored pairs."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.nn.collectives import count_processes, divide_sums, draw_rows, get_rank

NUM_HARDEST = 64


def contrastive_loss(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    positive: Bool[Tensor, "*g n m"],
    ignore: Bool[Tensor, "*g n m"],
    temperature: float,
    mixed: Float[Tensor, "*g n s d"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the mean over positive pairs (a, b) of -log(e^s(a,b) / (e^s(a,b) + sum over negatives n of e^s(a,n))).

    The mean is over the pairs of all processes. s is the cosine similarity divided by the temperature. A pair that is
    neither positive nor ignored is negative. The loss is 0 if there are no positive pairs.

    Args:
        q: Embeddings a.
        k: Embeddings b.
        positive: Which pairs are positive.
        ignore: Which pairs are ignored.
        temperature: Temperature of the similarities.
        mixed: Further negatives of each row of `q`; rows of zeros are none.
    """
    with torch.autocast(q.device.type, enabled=False):
        similarity = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT / temperature
    # A finite value, since the gradient of a row without negatives would be NaN with -inf.
    logits = similarity.masked_fill(positive | ignore, -1e9)
    if mixed is not None:
        with torch.autocast(q.device.type, enabled=False):
            further = (mixed @ F.normalize(q.float(), dim=-1)[..., None])[..., 0] / temperature
        logits = torch.cat([logits, further.masked_fill((mixed == 0).all(-1), -1e9)], -1)
    negatives = logits.logsumexp(-1, keepdim=True)
    scored = positive & ~ignore
    return divide_sums((F.softplus(negatives - similarity) * scored).sum(), scored.sum(), 1)


@torch.no_grad()
def mix_hard_negatives(
    q: Float[Tensor, "n d"],
    k: Float[Tensor, "m d"],
    negative: Bool[Tensor, "n m"],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "n s d"]:
    """Returns mixtures of the negatives that are most similar to each embedding, some of them with the embedding.

    Kalantidis et al., "Hard negative mixing for contrastive learning" (2020), https://arxiv.org/abs/2010.01028. As in
    the paper, one in nine mixtures has less than half of the embedding in place of a negative.

    Args:
        q: The first views of all crops of this process, then their second views.
        k: Keys of all processes.
        negative: Which keys are negatives of each embedding; no other key is mixed.
        count: Number of mixtures.
        generator: A generator on the CPU, with the same state in all processes.

    Returns:
        Normalised mixtures without gradient; zeros for an embedding without negatives.
    """
    q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
    similarity = (q @ k.mT).masked_fill(~negative, -2)
    hardest = similarity.topk(min(NUM_HARDEST, len(k)), 1)
    num_choices = (hardest.values > -2).sum(1)[:, None, None]
    draws = torch.cat([draw_rows((len(q) // 2, count, 3), generator) for _ in range(2)]).to(q.device)
    choice = (draws[..., :2] * num_choices).long()
    first, second = k[hardest.indices[:, None].expand(-1, count, -1).gather(2, choice)].unbind(2)
    has_query = (torch.arange(count, device=q.device) % 9 == 8)[:, None]
    weight = torch.where(has_query, draws[..., 2:] / 2, draws[..., 2:])
    mixed = weight * torch.where(has_query, q[:, None], first) + (1 - weight) * second
    return F.normalize(mixed, dim=-1) * (num_choices > 0)


def paired_view_mask(z: Float[Tensor, "n d"], k: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Returns which row of `k` is the other augmented view of each crop of `z`.

    Args:
        z: The first views of all crops of this process, then their second views.
        k: The first views of all crops of the global batch, then their second views, optionally followed by others.
    """
    num_crops = len(z) // 2
    first, total = torch.arange(num_crops, device=z.device) + get_rank() * num_crops, count_processes() * num_crops
    return torch.cat([first + total, first])[:, None] == torch.arange(len(k), device=k.device)


def match_regions(
    valid: Bool[Tensor, "n s r"], disjoint: Bool[Tensor, "n r r"]
) -> tuple[Bool[Tensor, "n sr sr"], Bool[Tensor, "n sr sr"]]:
    """Determines which pairs of regions are positive, and which are ignored.

    Args:
        valid: For each crop, which of the `r` regions exist in each of the `s` views.
        disjoint: Which regions of a crop do not overlap.

    Returns:
        Masks of positive pairs, the same region in two views, and of ignored pairs, which overlap or are not valid.
    """
    _, views, regions = valid.shape
    view = torch.arange(views, device=valid.device).repeat_interleave(regions)
    region = torch.arange(regions, device=valid.device).repeat(views)
    both_valid = valid.flatten(1)[:, :, None] & valid.flatten(1)[:, None]
    positive = (region[:, None] == region) & (view[:, None] != view) & both_valid
    return positive, ~positive & ~(disjoint.repeat(1, views, views) & both_valid)

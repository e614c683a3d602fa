"""The contrastive loss (InfoNCE) in matrix form, from masks of positive and ignored pairs."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.nn.collectives import count_processes, divide_sums, get_rank


def contrastive_loss(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    positive: Bool[Tensor, "*g n m"],
    ignore: Bool[Tensor, "*g n m"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Returns the mean over positive pairs (a, b) of -log(e^s(a,b) / (e^s(a,b) + sum over negatives n of e^s(a,n))).

    The mean is over the pairs of all processes. s is the cosine similarity divided by the temperature. A pair that is
    neither positive nor ignored is negative. The loss is 0 if there are no positive pairs.
    """
    with torch.autocast(q.device.type, enabled=False):
        similarity = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT / temperature
    # A finite value, since the gradient of a row without negatives would be NaN with -inf.
    negatives = similarity.masked_fill(positive | ignore, -1e9).logsumexp(-1, keepdim=True)
    scored = positive & ~ignore
    return divide_sums((F.softplus(negatives - similarity) * scored).sum(), scored.sum(), 1)


def paired_view_mask(z: Float[Tensor, "n d"], k: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Returns which row of `k` is the other augmented view of each crop of `z`.

    Args:
        z: The first views of all crops of this process, then their second views.
        k: The first views of all crops of the global batch, then their second views, optionally followed by others.
    """
    num_crops = len(z) // 2
    first, total = torch.arange(num_crops, device=z.device) + get_rank() * num_crops, count_processes() * num_crops
    return torch.cat([first + total, first])[:, None] == torch.arange(len(k), device=k.device)

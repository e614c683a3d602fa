"""The contrastive loss (InfoNCE) in matrix form, from masks of positive and ignored pairs."""

import torch
import torch.distributed.nn.functional as collective
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, distributed


def contrastive_loss(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    positive: Bool[Tensor, "*g n m"],
    ignore: Bool[Tensor, "*g n m"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Returns the mean over positive pairs (a, b) of -log(e^s(a,b) / (e^s(a,b) + sum over negatives n of e^s(a,n))).

    s is the cosine similarity divided by the temperature. A pair that is neither positive nor ignored is negative. The
    loss is 0 if there are no positive pairs.
    """
    with torch.autocast(q.device.type, enabled=False):
        similarity = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT / temperature
    # A finite value, since the gradient of a row without negatives would be NaN with -inf.
    negatives = similarity.masked_fill(positive | ignore, -1e9).logsumexp(-1, keepdim=True)
    scored = positive & ~ignore
    return (F.softplus(negatives - similarity) * scored).sum() / scored.sum().clamp(min=1)


def paired_view_mask(z: Float[Tensor, "n d"], k: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Returns which row of `k` is the other augmented view of each crop of `z`.

    Args:
        z: The first views of all crops of this process, then their second views.
        k: The rows of all processes, in the order of `all_gather_rows`, optionally followed by others.
    """
    rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    rows = torch.arange(len(z), device=z.device)
    other = (rows + len(z) // 2) % len(z) + rank * len(z)
    return other[:, None] == torch.arange(len(k), device=k.device)


def all_gather_rows(x: Tensor) -> Tensor:
    """Concatenates the rows of all processes, with gradients if `x` requires them."""
    if not distributed.is_available() or not distributed.is_initialized():
        return x
    if x.requires_grad:
        return torch.cat(collective.all_gather(x.contiguous()))
    rows = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, x.contiguous())
    return torch.cat(rows)

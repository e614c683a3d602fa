"""The contrastive loss in matrix form: who is positive to whom, and who is left out."""

import torch
import torch.distributed.nn.functional as collective
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, distributed


def contrast(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    positive: Bool[Tensor, "*g n m"],
    ignore: Bool[Tensor, "*g n m"],
    temperature: float,
) -> Float[Tensor, ""]:
    """The mean over positives a, b of -log(e^ab / (e^ab + sum over negatives n of e^an)), of cosines / temperature.

    Whatever is neither positive nor left out is a negative; without positives the loss is 0.
    """
    with torch.autocast(q.device.type, enabled=False):
        similar = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).mT / temperature
    # Not -inf: a row without negatives would have the gradient nan.
    negatives = similar.masked_fill(positive | ignore, -1e9).logsumexp(-1, keepdim=True)
    chosen = positive & ~ignore
    return (F.softplus(negatives - similar) * chosen).sum() / chosen.sum().clamp(min=1)


def twins(z: Float[Tensor, "n d"], k: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Which of the gathered rows is the other look at each crop, where `z` holds first looks, then second looks."""
    rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    rows = torch.arange(len(z), device=z.device)
    other = (rows + len(z) // 2) % len(z) + rank * len(z)
    return other[:, None] == torch.arange(len(k), device=k.device)


def gathered(x: Tensor) -> Tensor:
    """The rows of every process, with gradients where there are any; itself where there is one process."""
    if not distributed.is_available() or not distributed.is_initialized():
        return x
    if x.requires_grad:
        return torch.cat(collective.all_gather(x.contiguous()))
    rows = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, x.contiguous())
    return torch.cat(rows)

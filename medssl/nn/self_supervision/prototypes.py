"""Prototypes: learned directions that a teacher and a student assign embeddings to, and what keeps all of them in use.

Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments" (2020),
https://arxiv.org/abs/2006.09882, and "Emerging properties in self-supervised vision transformers" (2021),
https://arxiv.org/abs/2104.14294.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.collectives import all_gather_rows, take_own_rows

SINKHORN_ITERATIONS = 3


class PrototypeHead(nn.Module):
    """Compares embeddings with prototypes by cosine similarity.

    Args:
        in_channels: Dimensions of an embedding.
        width: Dimensions in which embeddings and prototypes are compared.
        num_prototypes: Number of prototypes.
    """

    def __init__(self, in_channels: int, width: int, num_prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(in_channels, in_channels), nn.GELU(), nn.Linear(in_channels, width))
        self.prototypes = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_prototypes, width), std=0.02))

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n k"]:
        """Returns the cosine similarity of each embedding and each prototype."""
        z = self.mlp(x).float()
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(z, dim=-1) @ F.normalize(self.prototypes.float(), dim=-1).mT


def assign_equally(
    similarity: Float[Tensor, "n k"], where: Bool[Tensor, "n"], temperature: float
) -> Float[Tensor, "n k"]:
    """Returns probabilities of the prototypes for each row, with every prototype in equal use over all processes.

    The algorithm is that of Sinkhorn and Knopp.

    Args:
        similarity: Similarities of the rows of this process, the same number in each process.
        where: Which rows count; the others get probability 0.
        temperature: Divides the similarities.
    """
    rows, counts = all_gather_rows(similarity.detach()), all_gather_rows(where)
    p = ((rows - rows.amax()) / temperature).exp() * counts[:, None]
    for _ in range(SINKHORN_ITERATIONS):
        p = p / p.sum(0, keepdim=True).clamp_min(1e-30)
        p = p / p.sum(1, keepdim=True).clamp_min(1e-30)
    return take_own_rows(p, len(similarity))


def compute_divergence(
    target: Float[Tensor, "*n k"], similarity: Float[Tensor, "*n k"], temperature: float
) -> Float[Tensor, "*n"]:
    """Returns the divergence of a student's probabilities, the softmax of its similarities, from a target.

    It differs from the cross-entropy of the papers by the entropy of the target, which has no gradient: it is 0 where
    the student has learnt the target, and does not rise with the entropy of the target.
    """
    cross_entropy = -(target * (similarity / temperature).log_softmax(-1)).sum(-1)
    return cross_entropy - torch.special.entr(target).sum(-1)


def spread_loss(z: Float[Tensor, "n d"], volume: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Returns the mean negative logarithm of the distance of each embedding to the nearest one of another volume.

    The KoLeo regularizer of Sablayrolles et al., "Spreading vectors for similarity search" (2019),
    https://arxiv.org/abs/1806.03198, on the sphere; 0 if there is one volume.

    Args:
        z: Embeddings of this process.
        volume: Number of the volume that each embedding comes from.
    """
    rows, volumes = F.normalize(all_gather_rows(z.float()), dim=-1), all_gather_rows(volume)
    is_other = volumes[:, None] != volumes
    if not is_other.any():
        return z.sum() * 0
    similarity = (rows @ rows.mT).masked_fill(~is_other, -1)
    distance = (2 - 2 * similarity.amax(1)).clamp_min(1e-6).sqrt()
    return -distance.log().mean()

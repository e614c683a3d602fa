"""Second-order matching of two graphs: nodes match by their features, and edges by the differences of their ends.

Nguyen et al., "LVM-Med: learning large-scale self-supervised vision models for medical imaging via second-order graph
matching" (2023), https://arxiv.org/abs/2306.11925. Deviation: the matching is relaxed with Sinkhorn's algorithm,
through which gradients flow, in place of a combinatorial solver with implicit maximum likelihood estimation.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

SINKHORN_ITERATIONS = 50
MATCHING_ROUNDS = 3  # in which the edges of a node count as far as their other ends match


def match_graphs(
    first: Float[Tensor, "b n d"],
    second: Float[Tensor, "b n d"],
    first_edges: Bool[Tensor, "b n n"],
    second_edges: Bool[Tensor, "b n n"],
    edge_weight: float,
    temperature: float,
) -> Float[Tensor, "b n n"]:
    """Returns the probability that each node of a graph matches each node of another one; rows and columns sum to 1.

    Args:
        first: Features of the nodes of one graph.
        second: Features of the nodes of the other graph.
        first_edges: Which pairs of nodes have an edge.
        second_edges: The same in the other graph.
        edge_weight: Weight of the edges relative to the nodes; with 0, nodes are assigned by their features alone.
        temperature: Divides the scores.
    """
    first, second = first.float(), second.float()
    with torch.autocast(first.device.type, enabled=False):
        nodes = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).mT
        match = balance(nodes / temperature)
        if edge_weight == 0:
            return match
        similarity = torch.einsum(
            "bijd,bkld->bijkl", _difference(first, first_edges), _difference(second, second_edges)
        )
        count = first_edges.sum(-1).clamp_min(1)[..., None]
        for _ in range(MATCHING_ROUNDS):
            edges = torch.einsum("bijkl,bjl->bik", similarity, match) / count
            match = balance((nodes + edge_weight * edges) / temperature)
    return match


def balance(logits: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """Scales rows and columns of the exponentials of logits until all sum to 1, by Sinkhorn's algorithm."""
    for _ in range(SINKHORN_ITERATIONS):
        logits = logits - logits.logsumexp(-2, keepdim=True)
        logits = logits - logits.logsumexp(-1, keepdim=True)
    return logits.exp()


def join_neighbours(positions_mm: Float[Tensor, "b n 3"], count: int) -> Bool[Tensor, "b n n"]:
    """Returns which nodes are among the `count` nearest ones of each node."""
    distance = torch.cdist(positions_mm.double(), positions_mm.double())
    distance = distance.masked_fill(torch.eye(distance.shape[1], dtype=torch.bool, device=distance.device), torch.inf)
    return torch.zeros_like(distance, dtype=torch.bool).scatter(2, distance.topk(count, largest=False).indices, True)


def _difference(x: Float[Tensor, "b n d"], edges: Bool[Tensor, "b n n"]) -> Float[Tensor, "b n n d"]:
    """Returns the direction from each node to its neighbours in feature space, 0 without an edge."""
    return F.normalize(x[:, None] - x[:, :, None], dim=-1) * edges[..., None]

"""Low-rank adapters: a network stands still but for small changes of its weights, which then melt into plain weights.

Hu et al., "LoRA: low-rank adaptation of large language models" (2022), https://arxiv.org/abs/2106.09685. Of a
convolution, the kernel is taken as a matrix of its first axis by everything else.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

ADAPTED = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)


class LowRank(nn.Module):
    """Adds a product of two thin matrices to a weight; the product is zero at first."""

    def __init__(self, weight: Float[Tensor, "..."], rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight as the network uses it."""
        return weight + (self.up @ self.down).view(weight.shape)


def adapt(network: nn.Module, rank: int) -> None:
    """Freezes every matrix and kernel of a network and gives it an adapter; norms and biases go on learning."""
    for weight in network.parameters():
        weight.requires_grad_(weight.ndim == 1)
    for module in list(network.modules()):
        if isinstance(module, ADAPTED):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merge(network: nn.Module) -> None:
    """Adds every adapter to its weight for good: the network has the keys and the types it had before `adapt`."""
    with torch.no_grad():
        for module in list(network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

"""Low-rank adapters: freezes a network except for low-rank updates of its weights, which are merged after training.

Hu et al., "LoRA: low-rank adaptation of large language models" (2022), https://arxiv.org/abs/2106.09685. The kernel of
a convolution is treated as a matrix of its first axis by all other axes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

ADAPTED_LAYERS = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)


class LowRank(nn.Module):
    """Adds the product of two low-rank matrices to a weight; the product is zero at initialisation."""

    def __init__(self, weight: Float[Tensor, "..."], rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns the adapted weight."""
        return weight + (self.up @ self.down).view(weight.shape)


def add_adapters(network: nn.Module, rank: int) -> None:
    """Freezes all matrices and kernels of a network and adds an adapter to each; norms and biases stay trainable."""
    for weight in network.parameters():
        weight.requires_grad_(weight.ndim == 1)
    for module in list(network.modules()):
        if isinstance(module, ADAPTED_LAYERS):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merge_adapters(network: nn.Module) -> None:
    """Adds each adapter to its weight, which restores the state dict keys and layer types before `add_adapters`."""
    with torch.no_grad():
        for module in list(network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

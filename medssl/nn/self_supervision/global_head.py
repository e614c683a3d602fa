"""The projection head of the global contrastive loss."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GlobalHead(nn.Module):
    """Computes the embedding of a crop from the mean and the maximum of its coarsest features."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * in_channels, in_channels), nn.GELU(), nn.Linear(in_channels, width))

    def forward(self, x: Float[Tensor, "n c p q r"]) -> Float[Tensor, "n d"]:
        """Returns the embedding without L2 normalisation."""
        return self.mlp(torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1))

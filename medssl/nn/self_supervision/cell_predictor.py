"""A small transformer that predicts the features of hidden cells from visible ones, and is thrown away afterwards.

The predictor of Assran et al., "Self-supervised learning from images with a joint-embedding predictive architecture"
(2023), https://arxiv.org/abs/2301.08243. Deviation: queries read the visible cells by cross-attention only, so that a
batch may hide different numbers of cells.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.norms import LayerNorm
from medssl.nn.self_supervision.tokens import embed_positions

NUM_HEADS = 6


class CellPredictor(nn.Module):
    """Predicts one vector for each cell from the visible cells and their positions.

    Args:
        in_channels: Dimensions of a token.
        width: Dimensions within the predictor, a multiple of 6.
        depth: Number of attention blocks.
        out_channels: Dimensions of a prediction; None for those of a token.
    """

    def __init__(self, in_channels: int, width: int, depth: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(in_channels, width)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        self.blocks = nn.ModuleList(CrossAttention(width) for _ in range(depth))
        self.leave = nn.Sequential(LayerNorm(width), nn.Linear(width, out_channels or in_channels))

    def forward(
        self, tokens: Float[Tensor, "b n d"], visible: Bool[Tensor, "b n"], positions_mm: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "b n e"]:
        """Returns the predictions of all cells; the tokens of hidden cells are not read."""
        places = embed_positions(positions_mm, self.width).to(tokens.dtype)
        context = self.enter(tokens) + places
        x = (self.query + places).expand_as(context)
        for block in self.blocks:
            x = block(x, context, visible)
        return self.leave(x)


class CrossAttention(nn.Module):
    """Queries read the visible tokens of a context, then pass a two-layer network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(3))
        self.to_query, self.merge = nn.Linear(width, width), nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: Float[Tensor, "b m d"], context: Float[Tensor, "b n d"], visible: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        """Returns the queries with what they read."""
        query = self._split_heads(self.to_query(self.norms[0](x)))
        key, value = map(self._split_heads, self.to_key_value(self.norms[1](context)).chunk(2, -1))
        read = F.scaled_dot_product_attention(query, key, value, visible[:, None, None])
        x = x + self.merge(read.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[2](x))

    def _split_heads(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n e"]:
        return x.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2)

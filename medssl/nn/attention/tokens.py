"""Attention of the tokens of patches, of all others or of those near them, of which hidden ones may be missing.

What a token reads follows from the places of the tokens on the grid of patches, not from their order, so that tokens
may be dropped. Each form is computed from all pairs of tokens: locality saves no time here.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.norms import LayerNorm

Reach = Literal["global", "halo", "cross", "outlook"]
LOCALITY = 16.0


class Attention(nn.Module):
    """Multi-head attention with rotary positions, into which a gate may mix attention by position alone.

    Args:
        width: Dimensions of a token.
        num_heads: Heads.
        normalize: Whether what the heads read is normalised.
        is_gated: Whether attention by position is mixed in.
    """

    def __init__(self, width: int, num_heads: int, normalize: bool, is_gated: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.v_proj, self.proj = (nn.Linear(width, width) for _ in range(3))
        self.k_proj = nn.Linear(width, width, bias=False)
        self.norm = LayerNorm(width) if normalize else nn.Identity()
        self.local = GatedPositionalAttention(num_heads) if is_gated else None

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        angles: Float[Tensor, "_ 1 n e"],
        mask: Bool[Tensor, "_b _h _n n"] | None,
        places: Int[Tensor, "_ n 3"],
    ) -> Float[Tensor, "b n d"]:
        """Returns what each token reads from the others."""
        projections = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (rearrange(y, "b n (h e) -> b h n e", h=self.num_heads) for y in projections)
        read = F.scaled_dot_product_attention(_turn(q, angles), _turn(k, angles), v, mask)
        if self.local is not None:
            read = self.local(read, v, places, mask)
        return self.proj(self.norm(rearrange(read, "b h n e -> b n (h e)")))


class OutlookAttention(nn.Module):
    """Attention whose weights over the neighbours of a token follow from the token alone.

    Yuan et al., "VOLO: vision outlooker for visual recognition" (2021), https://arxiv.org/abs/2106.13112. Deviation: a
    token reads its neighbours, and does not write to theirs as well.

    Args:
        width: Dimensions of a token.
        num_heads: Heads.
        normalize: Whether what the heads read is normalised.
        window: Patches along each axis of a neighbourhood, an odd number.
    """

    def __init__(self, width: int, num_heads: int, normalize: bool, window: int) -> None:
        super().__init__()
        self.num_heads, self.radius = num_heads, window // 2
        self.weights = nn.Linear(width, num_heads * window**3)
        self.v_proj, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = LayerNorm(width) if normalize else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        angles: Float[Tensor, "_ 1 n e"],
        mask: Bool[Tensor, "_b _h _n n"] | None,
        places: Int[Tensor, "_ n 3"],
    ) -> Float[Tensor, "b n d"]:
        """Returns what each token reads from its neighbours."""
        side = 2 * self.radius + 1
        offset = (places[:, None] - places[:, :, None] + self.radius).clamp(0, side - 1)
        number = (offset[..., 0] * side + offset[..., 1]) * side + offset[..., 2]
        logits = rearrange(self.weights(x), "b n (h w) -> b h n w", h=self.num_heads)
        scores = logits.gather(3, number[:, None].expand(*logits.shape[:3], -1))
        v = rearrange(self.v_proj(x), "b n (h e) -> b h n e", h=self.num_heads)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return self.proj(self.norm(rearrange(scores.softmax(3) @ v, "b h n e -> b n (h e)")))


class GatedPositionalAttention(nn.Module):
    """Attention by position alone, in which each head starts at one neighbour, and the gate of each head.

    d'Ascoli et al., "ConViT: improving vision transformers with soft convolutional inductive biases" (2021),
    https://arxiv.org/abs/2103.10697. The score of a key at an offset of d patches is a quadratic function of d, which
    starts as -LOCALITY |d - neighbour|^2. Deviation: LOCALITY is 16 instead of 1, so that a head reads one patch, and
    all heads together are a convolution. Where the neighbour is hidden or outside, a head reads the nearest visible
    patches instead.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        slope = 2 * LOCALITY * list_neighbours(num_heads).float()
        self.weight = nn.Parameter(torch.cat([torch.full((num_heads, 1), -LOCALITY), slope], 1))
        self.gate = nn.Parameter(torch.ones(num_heads))

    def forward(
        self,
        read: Float[Tensor, "b h n e"],
        v: Float[Tensor, "b h n e"],
        places: Int[Tensor, "_ n 3"],
        mask: Bool[Tensor, "_b _h _n n"] | None,
    ) -> Float[Tensor, "b h n e"]:
        """Mixes the values that each head reads by position into those that it reads by content."""
        # Terms of the query alone cancel in the softmax, so the score is a product of four numbers of query and key.
        # In bf16, squares of places would be off by several patches.
        with torch.autocast(v.device.type, enabled=False):
            curvature, slope = self.weight[:, None, :1], self.weight[:, None, 1:]
            key_places = places[:, None].to(self.weight.dtype)
            keys = torch.cat([key_places, key_places.square().sum(-1, keepdim=True)], -1)
            linear = slope - 2 * curvature * key_places
            queries = torch.cat([linear, curvature.expand(*linear.shape[:-1], 1)], -1)
            queries, keys = (y.expand(len(v), v.shape[1], -1, -1) for y in (queries, keys))
            local = F.scaled_dot_product_attention(queries, keys, v.to(queries.dtype), mask, scale=1.0)
            share = self.gate.sigmoid()[:, None, None]
            return (read + share * (local - read)).to(read.dtype)


def find_readable(
    reach: Reach, places: Int[Tensor, "_ n 3"], num_heads: int, window: int, halo: int
) -> Bool[Tensor, "_ _h n n"] | None:
    """Returns which tokens each token reads by their places; None for all. Each reads itself.

    `halo` has blocks of patches that read themselves and a margin: Vaswani et al., "Scaling local self-attention for
    parameter efficient visual backbones" (2021), https://arxiv.org/abs/2103.12731. `cross` has bars along the three
    axes, each for a third of the heads, which together are a cross: Dong et al., "CSWin transformer" (2022),
    https://arxiv.org/abs/2107.00652. `outlook` has a neighbourhood of each patch.

    Args:
        reach: What a token reads.
        places: Indices of the patches on their grid.
        num_heads: Heads; head h has the bar along axis h modulo 3.
        window: Patches along each side of a block, across a bar, or along each side of a neighbourhood.
        halo: Patches of the margin of a block.
    """
    query, key = places[:, :, None], places[:, None]
    if reach == "global":
        return None
    if reach == "outlook":
        return ((query - key).abs() <= window // 2).all(-1)[:, None]
    block = query // window
    if reach == "halo":
        first = block * window
        return ((key >= first - halo) & (key < first + window + halo)).all(-1)[:, None]
    is_same = block == key // window
    bars = [is_same[..., [a for a in range(3) if a != axis]].all(-1) for axis in range(3)]
    return torch.stack([bars[head % 3] for head in range(num_heads)], 1)


def list_places(grid: Sequence[int], device: torch.device) -> Int[Tensor, "n 3"]:
    """Returns the indices of each patch along the axes of a grid, the last axis fastest."""
    return torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid)).view(-1, 3)


def list_neighbours(count: int) -> Int[Tensor, "count 3"]:
    """Returns the offsets to a patch itself and to its nearest neighbours, in patches; 27 are a cube of 3^3."""
    radius = next(r for r in range(count) if (2 * r + 1) ** 3 >= count)
    offsets = list_places((2 * radius + 1,) * 3, torch.device("cpu")) - radius
    return offsets[offsets.square().sum(1).argsort(stable=True)[:count]]


def _turn(x: Float[Tensor, "b h n e"], angles: Float[Tensor, "_ 1 n e"]) -> Float[Tensor, "b h n e"]:
    """Turns each pair of dimensions by its angle."""
    orthogonal = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return (x * angles.cos() + orthogonal * angles.sin()).to(x.dtype)

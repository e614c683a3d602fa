"""A transformer over patches that drops hidden ones, with the blocks and the published weights of Primus.

Wald et al., "Primus: enforcing attention usage for 3D medical image segmentation" (2025),
https://arxiv.org/abs/2503.01835, whose blocks are those of EVA-02: Fang et al. (2023),
https://arxiv.org/abs/2303.11331. Under a mask, attention reads the visible tokens only, as in a masked autoencoder.
Deviations: the finer levels, which Primus decodes from the tokens, are a pyramid, so that it fits every decoder here;
and the learned absolute positions, which depend on the size of the crop, are optional.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.attention.tokens import Attention, OutlookAttention, Reach, find_readable, list_places
from medssl.nn.encoders.base import Encoder, StandardizingConfig, as_triples, check_levels
from medssl.nn.executor import Executor, Triple
from medssl.nn.norms import LayerNorm, LayerNorm3d
from medssl.nn.self_supervision.tokens import to_tokens
from medssl.nn.sparse import choose_batch_size

ROTARY_BASE = 10_000.0
MLP_SCALE = 8 / 3


class Config(StandardizingConfig):
    """Settings of the tokens and the blocks; a patch has the total stride as its size."""

    name: Literal["primus"] = Field("primus", description="name of the encoder")
    channels: tuple[PositiveInt, ...] = Field(
        (16, 32, 64, 192),
        min_length=1,
        description="width of each level; the last one is that of the tokens, a multiple of 6 num_heads",
    )
    strides: tuple[int | Triple, ...] = Field(
        (1, 2, 2, 2), description="stride of each level: one number, or one for each axis; their product is the patch"
    )
    depth: PositiveInt = Field(6, description="transformer blocks")
    num_heads: PositiveInt = Field(4, description="attention heads of a block")
    grid: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None,
        description="patches along each axis of the learned absolute positions, which are interpolated for other crops;"
        " null has rotary positions only, which do not depend on the size of the crop",
    )
    layer_scale: PositiveFloat | None = Field(
        0.1, description="initial factor of what each half of a block adds; null leaves the factor out"
    )
    attention_norm: bool = Field(True, description="normalise what the attention of a block reads")
    gate: Literal["none", "conv"] = Field(
        "none",
        description="conv mixes attention by position alone into each head, by a learned gate; it starts as a"
        " convolution, complete with 27 heads; none has attention by content only",
    )
    reach: Reach = Field(
        "global",
        description="what a patch reads: all (global), its block with a margin (halo), bars along the axes (cross), or"
        " its neighbours by weights of its own (outlook)",
    )
    window: PositiveInt = Field(
        3, description="halo, cross, outlook: patches along each side of a block, a bar across, a neighbourhood"
    )
    halo: int = Field(1, ge=0, description="halo: patches of the margin of a block")

    @model_validator(mode="after")
    def _check_widths(self) -> "Config":
        check_levels(self.channels, self.strides, 1)
        if self.channels[-1] % (6 * self.num_heads):
            raise ValueError(
                f"channels[-1] {self.channels[-1]} is no multiple of 6 num_heads = {6 * self.num_heads}: a head has an"
                " even number of dimensions for each axis"
            )
        if self.reach == "cross" and self.num_heads % 3:
            raise ValueError(
                f"num_heads={self.num_heads}: reach=cross has a third of the heads for each axis; give 3, 6 or more"
            )
        if self.reach == "outlook" and (self.gate != "none" or self.window % 2 == 0):
            raise ValueError(
                "reach=outlook needs an odd window and gate=none, since it has weights by position already"
            )
        return self

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return PrimusEncoder(self, in_channels)


class PrimusEncoder(Encoder):
    """Turns each patch into a token, transforms the visible tokens, and expands them to the finer levels."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.in_channels, self.channels, self.strides = in_channels, config.channels, as_triples(config.strides)
        self.set_input_moments(config.input_mean_std)
        *fine, width = config.channels
        self.num_heads, self.reach = config.num_heads, (config.reach, config.num_heads, config.window, config.halo)
        self.projection = nn.Conv3d(in_channels, width, self.patch, self.patch)
        self.positions = None if config.grid is None else nn.Parameter(torch.randn(1, width, *config.grid) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(width)
        steps = zip(fine, config.channels[1:], self.strides[1:], strict=True)
        self.expansions = nn.ModuleList(Expansion(coarse, narrow, stride) for narrow, coarse, stride in steps)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        maps = executor.to_dense(executor.conv(self.projection, executor.to_features(self.standardize(x))))
        visible = None
        if type(executor) is not Executor:
            visible = executor.to_dense(executor.to_features(torch.ones_like(maps[:, :1]))).flatten(1) > 0
        pyramid = [executor.to_features(self.transform(maps, visible))]
        for expansion in reversed(self.expansions):
            pyramid.insert(0, expansion(pyramid[0], executor))
        return pyramid

    def transform(
        self, maps: Float[Tensor, "b d p q r"], visible: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b d p q r"]:
        """Applies the blocks to the visible tokens; hidden ones are not read, and are zero in the result."""
        p, q, r = maps.shape[2:]
        if self.positions is not None:
            maps = maps + F.interpolate(self.positions, (p, q, r), mode="trilinear", align_corners=False).to(maps.dtype)
        tokens, keys = to_tokens(maps), None
        angles = compute_rotary_angles((p, q, r), tokens.shape[-1] // self.num_heads, tokens.device)[None]
        places = list_places((p, q, r), tokens.device)[None]
        if visible is not None:
            count = choose_batch_size(int(visible.sum(1).max()), visible.shape[1])
            order = visible.byte().argsort(dim=1, descending=True, stable=True)[:, :count, None]
            index = order.expand(-1, -1, tokens.shape[-1])
            keys = visible[..., None].gather(1, order)
            tokens = torch.where(keys, tokens.gather(1, index), 0)
            angles, places = angles[0, order[..., 0]], places[0, order[..., 0]]
        mask = self.find_mask(places, None if keys is None else keys[..., 0])
        for block in self.blocks:
            tokens = block(tokens, angles[:, None], mask, places)
        tokens = self.norm(tokens)
        if keys is not None:
            empty = tokens.new_zeros(len(tokens), p * q * r, tokens.shape[-1])
            tokens = empty.scatter(1, index, torch.where(keys, tokens, 0))
        return rearrange(tokens, "b (p q r) d -> b d p q r", p=p, q=q, r=r)

    def find_mask(self, places: Int[Tensor, "_ n 3"], keys: Bool[Tensor, "b n"] | None) -> Tensor | None:
        """Returns which tokens each token reads, for "b h n n" or broadcast to it; None for all."""
        reach, num_heads, window, halo = self.reach
        near = find_readable(reach, places, num_heads, window, halo)
        if keys is None or near is None:
            return near if keys is None else _keep_one_key(keys)[:, None, None]
        # A dropped token reads itself, since attention to nothing is not a number.
        return near & keys[:, None, None] | torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)


class Block(nn.Module):
    """Attention and a gated two-layer network, each behind a norm; the names of the layers are those of Primus."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, scale = config.channels[-1], config.layer_scale
        self.norm1 = LayerNorm(width)
        self.attn: nn.Module = (
            OutlookAttention(width, config.num_heads, config.attention_norm, config.window)
            if config.reach == "outlook"
            else Attention(width, config.num_heads, config.attention_norm, config.gate == "conv")
        )
        self.norm2, self.mlp = LayerNorm(width), GatedMlp(width, int(width * MLP_SCALE))
        self.gamma_1 = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.gamma_2 = None if scale is None else nn.Parameter(torch.full((width,), scale))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        angles: Float[Tensor, "_ 1 n e"],
        mask: Bool[Tensor, "_b _h _n n"] | None,
        places: Int[Tensor, "_ n 3"],
    ) -> Float[Tensor, "b n d"]:
        """Returns the transformed tokens; keys where the mask is false are not read."""
        attention = self.attn(self.norm1(x), angles, mask, places)
        x = x + (attention if self.gamma_1 is None else self.gamma_1 * attention)
        update = self.mlp(self.norm2(x))
        return x + (update if self.gamma_2 is None else self.gamma_2 * update)


class GatedMlp(nn.Module):
    """A two-layer network in which a gate multiplies the hidden units (SwiGLU), with a norm on them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x, self.fc2 = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = LayerNorm(hidden)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Returns the transformed tokens."""
        return self.fc2(self.norm(F.silu(self.fc1_g(x)) * self.fc1_x(x)))


class Expansion(nn.Module):
    """Expands each voxel of a level to the voxels of the next finer one, as a transposed convolution does."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple) -> None:
        super().__init__()
        i, j, k = self.stride = stride
        self.conv = nn.Conv3d(in_channels, out_channels * i * j * k, 1)
        self.norm = LayerNorm3d(out_channels)

    def forward(self, x: Tensor, executor: Executor) -> Tensor:
        """Returns the finer level in the storage format of the executor."""
        i, j, k = self.stride
        pattern = "b (c i j k) p q r -> b c (p i) (q j) (r k)"
        return F.gelu(executor.norm(self.norm, rearrange(executor.conv(self.conv, x), pattern, i=i, j=j, k=k)))


def compute_rotary_angles(grid: Sequence[int], width: int, device: torch.device) -> Float[Tensor, "n e"]:
    """Returns the angle by which each pair of dimensions of a head is turned for each patch, the last axis fastest.

    Su et al., "RoFormer: enhanced transformer with rotary position embedding" (2021),
    https://arxiv.org/abs/2104.09864: a third of the pairs for each axis, so that attention sees distances in patches.

    Args:
        grid: Patches along each axis.
        width: Dimensions of a head, a multiple of 6.
        device: Where the angles are needed.
    """
    frequencies = ROTARY_BASE ** -(torch.arange(width // 6, device=device) / (width // 6))
    return (list_places(grid, device)[:, :, None] * frequencies).flatten(1).repeat_interleave(2, 1)


def _keep_one_key(keys: Bool[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
    """Lets a crop without any visible patch read one zero token, since attention to nothing is not a number."""
    first = torch.arange(keys.shape[1], device=keys.device) == 0
    return keys | first

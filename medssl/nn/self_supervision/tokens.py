"""Tokens: the cells of a feature map as vectors, with their positions in mm."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

WAVELENGTHS_MM = (8.0, 1024.0)


def to_tokens(features: Float[Tensor, "b d p q r"]) -> Float[Tensor, "b n d"]:
    """Returns one vector for each cell of a feature map, the last axis fastest."""
    return rearrange(features, "b d p q r -> b (p q r) d")


def average_tokens(tokens: Float[Tensor, "b n d"], where: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """Returns the mean token of each crop over some cells, in fp32 and without gradient."""
    return (tokens.detach().float() * where[..., None]).sum(1) / where.sum(1, keepdim=True)


def cell_positions_mm(
    shape: tuple[int, int, int], cell: tuple[int, int, int], spacing_mm: tuple[float, float, float], like: Tensor
) -> Float[Tensor, "n 3"]:
    """Returns the centre of each cell relative to the centre of the crop, in the order of `to_tokens`.

    Args:
        shape: Cells of the feature map along each axis.
        cell: Voxels of a cell along each axis.
        spacing_mm: Voxel spacing along each axis.
        like: Tensor with the wanted device.
    """
    axes = [
        (torch.arange(n, device=like.device) - (n - 1) / 2) * side * mm
        for n, side, mm in zip(shape, cell, spacing_mm, strict=True)
    ]
    return torch.cartesian_prod(*axes).view(-1, 3)


def embed_positions(positions_mm: Float[Tensor, "n 3"], width: int) -> Float[Tensor, "n d"]:
    """Returns sines and cosines of positions, with wavelengths from 8 mm to 1 m.

    Vaswani et al., "Attention is all you need" (2017), https://arxiv.org/abs/1706.03762, for three axes in mm, so that
    an embedding means the same place at any voxel spacing.

    Args:
        positions_mm: Positions of tokens.
        width: Dimensions of an embedding, a multiple of 6.
    """
    shortest, longest = (math.log(2 * math.pi / mm) for mm in WAVELENGTHS_MM)
    frequencies = torch.linspace(shortest, longest, width // 6, device=positions_mm.device).exp()
    phases = (positions_mm[:, :, None] * frequencies).flatten(1)
    return torch.cat([phases.sin(), phases.cos()], 1)


def swap_views(x: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "b *rest"]:
    """Returns the other view of the same volume for each view; the two views of a volume are consecutive."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)

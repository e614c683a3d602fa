"""Layouts: where a network's convolutions and norms are executed, densely or on visible cells.

A network is made of plain torch modules and asks its layout to run them. `Layout` is the ordinary network; `Masked`
keeps hidden cells at exactly zero, with norms that measure visible voxels only. After Tian et al., "Designing BERT for
Convolutional Networks: Sparse and Hierarchical Masked Modeling" (2023), https://arxiv.org/abs/2301.03580.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medssl.nn.norms import ChannelNorm, affine, moments, scale_and_shift

Triple = tuple[int, int, int]


class Layout:
    """Runs a network's layers on features stored in its own way; this one is dense and sees everything."""

    def enter(self, x: Float[Tensor, "b c i j k"]) -> Tensor:
        """A dense volume as this layout stores it, without its hidden voxels."""
        return x

    def conv(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """A convolution that reads and writes visible voxels only."""
        return conv(x)

    def norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        """A norm over visible voxels only."""
        return norm(x)

    def leave(self, x: Tensor, fill: Float[Tensor, "c"] | None = None) -> Float[Tensor, "b c i j k"]:
        """Features as a dense volume, with `fill` or zeros where hidden."""
        return x

    def densify(self, conv: nn.Conv3d, x: Tensor, fill: Float[Tensor, "c"]) -> Float[Tensor, "b d i j k"]:
        """The dense convolution of features that are `fill` where hidden."""
        return conv(self.leave(x, fill))


class Masked(Layout):
    """Dense kernels followed by the mask: hidden cells are zero at every level."""

    def __init__(self, keep: Bool[Tensor, "b 1 p q r"]) -> None:
        self.keep = keep
        self._masks: dict[tuple[int, ...], Bool[Tensor, "b 1 i j k"]] = {}

    def mask(self, x: Float[Tensor, "b c i j k"]) -> Bool[Tensor, "b 1 i j k"]:
        """Which voxels of `x` are visible."""
        size = tuple(x.shape[2:])
        if size not in self._masks:
            self._masks[size] = enlarge(self.keep, (size[0], size[1], size[2]))
        return self._masks[size]

    def enter(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """The volume with hidden voxels at zero, whatever they held: NaN times zero would be NaN."""
        return torch.where(self.mask(x), x, 0)

    def conv(self, conv: nn.Conv3d, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """The dense convolution, masked."""
        y = conv(x)
        return y * self.mask(y)

    def norm(self, norm: nn.Module, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """The norm over visible voxels, masked."""
        m = self.mask(x)
        if isinstance(norm, ChannelNorm):
            return norm(x) * m
        return affine(x, *scale_and_shift(norm, moments(x, m)), m)

    def leave(
        self, x: Float[Tensor, "b c i j k"], fill: Float[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """The features, filled where hidden."""
        return x if fill is None else torch.where(self.mask(x), x, fill[:, None, None, None].to(x.dtype))


def enlarge(keep: Bool[Tensor, "b 1 p q r"], size: Triple) -> Bool[Tensor, "b 1 i j k"]:
    """A grid of cells repeated to a size in voxels."""
    for axis, voxels in enumerate(size, 2):
        keep = keep.repeat_interleave(voxels // keep.shape[axis], axis)
    return keep

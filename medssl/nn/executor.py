"""Runs the layers of an encoder on all patches of a volume, or on the visible patches of a mask only.

An encoder is made of plain torch modules and passes them to an `Executor`, which runs them. `Executor` is the ordinary
dense network. `MaskedExecutor` keeps hidden patches at exactly zero and computes norms over visible voxels only, after
Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (2023),
https://arxiv.org/abs/2301.03580.
"""

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn.norms import LayerNorm3d, apply_scale_shift, compute_moments, compute_scale_shift

Triple = tuple[int, int, int]


class Executor:
    """Runs the layers of an encoder on features in its own storage format; this base class is dense and unmasked."""

    def to_features(self, x: Float[Tensor, "b c i j k"]) -> Tensor:
        """Converts a dense volume to the storage format, without the hidden voxels."""
        return x

    def conv(self, conv: nn.Conv3d, x: Tensor) -> Tensor:
        """Applies a convolution that reads and writes visible voxels only."""
        return convolve(conv, x)

    def norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Applies a norm over visible voxels only."""
        return norm(x)

    def to_dense(self, x: Tensor, fill: Float[Tensor, "c"] | None = None) -> Float[Tensor, "b c i j k"]:
        """Converts features to a dense volume.

        Args:
            x: Features in the storage format.
            fill: Value of each channel in hidden voxels; None is zero.
        """
        return x

    def densify(self, conv: nn.Conv3d, x: Tensor, fill: Float[Tensor, "c"]) -> Float[Tensor, "b d i j k"]:
        """Fills hidden voxels with `fill` and applies a dense convolution."""
        return conv(self.to_dense(x, fill))


class MaskedExecutor(Executor):
    """Runs dense layers and multiplies by the mask: hidden patches are zero at every level.

    Args:
        visible: Which patches are visible.
    """

    def __init__(self, visible: Bool[Tensor, "b 1 p q r"]) -> None:
        self.visible = visible
        self._masks: dict[tuple[int, ...], Bool[Tensor, "b 1 i j k"]] = {}

    def mask_like(self, x: Float[Tensor, "b c i j k"]) -> Bool[Tensor, "b 1 i j k"]:
        """Returns which voxels of `x` are visible."""
        size = tuple(x.shape[2:])
        if size not in self._masks:
            self._masks[size] = upsample_mask(self.visible, (size[0], size[1], size[2]))
        return self._masks[size]

    def to_features(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Sets hidden voxels to zero. A product would not do: NaN times zero is NaN."""
        return torch.where(self.mask_like(x), x, 0)

    def conv(self, conv: nn.Conv3d, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """Applies the dense convolution and the mask."""
        y = convolve(conv, x)
        return y * self.mask_like(y)

    def norm(self, norm: nn.Module, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Applies the norm with the moments of visible voxels, and the mask."""
        mask = self.mask_like(x)
        if isinstance(norm, LayerNorm3d):
            return norm(x) * mask
        return apply_scale_shift(x, *compute_scale_shift(norm, compute_moments(x, mask)), mask)

    def to_dense(
        self, x: Float[Tensor, "b c i j k"], fill: Float[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """Writes `fill` into hidden voxels."""
        return x if fill is None else torch.where(self.mask_like(x), x, fill[:, None, None, None].to(x.dtype))


def convolve(conv: nn.Conv3d, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
    """Applies a convolution.

    Under autocast on a CPU, a depthwise one runs in fp32 where the volume is narrower than its kernel: for some
    processors, torch 2.13 computes the gradient of the kernel from uninitialised memory in bf16.
    """
    is_narrow = conv.groups > 1 and any(n < k for n, k in zip(x.shape[2:], conv.kernel_size, strict=True))
    if not (is_narrow and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
        return conv(x)
    with torch.autocast("cpu", enabled=False):
        return conv(x.float()).to(torch.get_autocast_dtype("cpu"))


def upsample_mask(visible: Bool[Tensor, "b 1 p q r"], size: Triple) -> Bool[Tensor, "b 1 i j k"]:
    """Upsamples a mask of patches to a mask of voxels; a voxel with several patches is true if one of them is.

    Args:
        visible: One value for each patch.
        size: Shape of the result in voxels, along each axis a multiple or a divisor of the number of patches.
    """
    pool = [max(1, patches // voxels) for voxels, patches in zip(size, visible.shape[2:], strict=True)]
    if max(pool) > 1:
        visible = F.max_pool3d(visible.float(), pool).bool()
    i, j, k = (voxels // patches for voxels, patches in zip(size, visible.shape[2:], strict=True))
    return repeat(visible, "b c p q r -> b c (p i) (q j) (r k)", i=i, j=j, k=k)

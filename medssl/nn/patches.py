"""Patches of a volume: their size, means and normalization, over all or some of their voxels."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medssl.nn.executor import Triple


def patch_size_of(visible: Bool[Tensor, "b 1 p q r"], x: Float[Tensor, "b c i j k"]) -> Triple:
    """Returns the size in voxels of the patches of a mask."""
    i, j, k = (voxels // patches for voxels, patches in zip(x.shape[2:], visible.shape[2:], strict=True))
    return i, j, k


def normalize_patches(
    x: Float[Tensor, "b c i j k"], patch: Triple, where: Bool[Tensor, "b c i j k"] | None = None
) -> tuple[Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"]]:
    """Normalises each patch to mean 0 and variance 1; also returns the mean and standard deviation at each voxel.

    Args:
        x: Volumes.
        patch: Size of a patch in voxels.
        where: The voxels that mean and variance are measured on; None is all.
    """
    x = x.float()
    size = (x.shape[2], x.shape[3], x.shape[4])
    mean = upsample_patches(average_patches(x, patch, where), size)
    std = upsample_patches((average_patches((x - mean).square(), patch, where) + 1e-6).sqrt(), size)
    return (x - mean) / std, mean, std


def average_patches(
    x: Float[Tensor, "b c i j k"], patch: Triple, where: Bool[Tensor, "b c i j k"] | None = None
) -> Float[Tensor, "b c p q r"]:
    """Returns the mean of each patch over the voxels where the mask is true; 0 for a patch without such voxels."""
    if where is None:
        return nn.functional.avg_pool3d(x, patch)
    share = nn.functional.avg_pool3d(where.to(x.dtype), patch)
    return nn.functional.avg_pool3d(x * where, patch) / share.clamp_min(1e-6)


def upsample_patches(x: Float[Tensor, "b c p q r"], size: Triple) -> Float[Tensor, "b c i j k"]:
    """Repeats the value of each patch over its voxels."""
    return nn.functional.interpolate(x, size, mode="nearest")


def compare_spectra(
    x: Float[Tensor, "b c i j k"], y: Float[Tensor, "b c i j k"], patch: Triple
) -> Float[Tensor, "b c p q r"]:
    """Returns the mean squared difference of the amplitude spectra of each patch of two volumes.

    The discrete Fourier transform is orthonormal. By Parseval's theorem the result is at most the mean squared
    difference of the voxels, and equals it where the phases are equal.
    """
    spectra = [torch.fft.fftn(_divide_patches(each.float(), patch), dim=(-3, -2, -1), norm="ortho") for each in (x, y)]
    return (spectra[0].abs() - spectra[1].abs()).square().mean(dim=(-3, -2, -1))


def _divide_patches(x: Float[Tensor, "b c i j k"], patch: Triple) -> Float[Tensor, "b c p q r u v w"]:
    u, v, w = patch
    return rearrange(x, "b c (p u) (q v) (r w) -> b c p q r u v w", u=u, v=v, w=w)

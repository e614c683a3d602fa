"""Augmentation: a crop seen slightly otherwise, as a pure function of the crop, its label and a generator."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.settings import Settings

Pair = tuple[Float[Tensor, "c i j k"], Int[Tensor, "i j k"] | None]


class Augment(Settings):
    """How strongly each change is made, and how often: `share` is the probability of each of them.

    The defaults follow nnU-Net's: Isensee et al., nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation, 2021, https://doi.org/10.1038/s41592-020-01008-z; milder, as few epochs need, and
    without mirroring left and right, which the names of paired organs depend on.
    """

    share: float = 0.3
    flip: tuple[bool, bool, bool] = (False, True, True)
    rotate_deg: float = 15.0
    scale: float = 0.15
    gamma: float = 0.3
    contrast: float = 0.25
    brightness: float = 0.1
    noise: float = 0.05
    blur: float = 1.0
    zoom: float = 0.5


def augment(how: Augment, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, source: Generator) -> Pair:
    """The crop and its label after one random round of changes; values stay in [0, 1], labels stay whole numbers."""
    x, label = _flip(how, x, label, source)
    if _chance(how, source):
        x, label = _turn(how, x, label, source)
    for change in (_blur, _lower, _noise, _light, _gamma):
        if _chance(how, source):
            x = change(how, x, source)
    return x.clamp(0, 1), label


def _uniform(source: Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=source).item()


def _chance(how: Augment, source: Generator) -> bool:
    return _uniform(source, 0, 1) < how.share


def _flip(how: Augment, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, source: Generator) -> Pair:
    heads = torch.rand(3, generator=source).tolist()
    axes = [axis - 3 for axis in range(3) if how.flip[axis] and heads[axis] < 0.5]
    return x.flip(axes), None if label is None else label.flip(axes)


def _turn(how: Augment, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, source: Generator) -> Pair:
    """Rotates and scales about the middle, in voxels; linear for the image, nearest for the label."""
    turn = torch.eye(3)
    for axis in range(3):
        angle = math.radians(_uniform(source, -how.rotate_deg, how.rotate_deg))
        a, b = [other for other in range(3) if other != axis]
        one = torch.eye(3)
        one[a, a] = one[b, b] = math.cos(angle)
        one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
        turn = turn @ one
    turn = turn / _uniform(source, 1 - how.scale, 1 + how.scale)
    # grid_sample counts in half widths, and names axes k j i: a rotation in voxels is conjugated by the shape.
    half = torch.tensor(x.shape[:0:-1], dtype=torch.float32)
    matrix = turn * half[None] / half[:, None]
    grid = F.affine_grid(torch.cat([matrix, torch.zeros(3, 1)], 1)[None], [1, 1, *x.shape[1:]], align_corners=False)
    moved = F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    if label is None:
        return moved, None
    near = F.grid_sample(label[None, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, near[0, 0].to(label.dtype)


def _blur(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    """A Gaussian of up to `blur` voxels, one axis after the other."""
    sigma = _uniform(source, 0.3, max(0.3, how.blur))
    reach = math.ceil(2 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(x)
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        pad = [0] * 6
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = reach
        x = F.conv3d(F.pad(x[:, None], pad, mode="replicate"), kernel.view(shape))[:, 0]
    return x


def _lower(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    """A coarser scan, brought back to the grid."""
    zoom = _uniform(source, how.zoom, 1)
    small = [max(1, round(n * zoom)) for n in x.shape[1:]]
    coarse = F.interpolate(x[None], size=small, mode="nearest-exact")
    return F.interpolate(coarse, size=x.shape[1:], mode="trilinear", align_corners=False)[0]


def _noise(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    return x + _uniform(source, 0, how.noise) * torch.randn(x.shape, generator=source)


def _light(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = _uniform(source, 1 - how.contrast, 1 + how.contrast)
    return (x - mean) * contrast + mean + _uniform(source, -how.brightness, how.brightness)


def _gamma(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    return x.clamp(0, 1) ** math.exp(_uniform(source, -how.gamma, how.gamma))

"""Augmentation: a crop seen slightly otherwise, as a pure function of the crop, its label and a generator."""

import math

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.settings import Settings

CONTROL = 5  # control points an axis of a bend
FURTHEST = 0.4  # of their distance, that they move: below a half, so that neighbours never change places

Pair = tuple[Float[Tensor, "c i j k"], Int[Tensor, "i j k"] | None]


class Augment(Settings):
    """How strongly each change is made, and how often: `share` is the probability of each of them.

    The defaults follow nnU-Net's: Isensee et al., nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation, 2021, https://doi.org/10.1038/s41592-020-01008-z; milder, as few epochs need, and
    without mirroring left and right, which the names of paired organs depend on. `elastic` bends as Ronneberger et
    al., U-Net, 2015, https://arxiv.org/abs/1505.04597: few control points move at random, linear in between, which
    costs little beside the turn's own resampling and never folds.
    """

    share: float = Field(0.3, ge=0, le=1)
    flip: tuple[bool, bool, bool] = Field((False, True, True), description="mirrors: left-right, back-front, up-down")
    swap: tuple[tuple[int, int], ...] = Field((), description="classes that change places with left and right")
    rotate_deg: float = 15.0
    scale: float = 0.15
    elastic: float = Field(0.1, ge=0, le=0.2, description="standard deviation, in distances of control points")
    gamma: float = 0.3
    contrast: float = 0.25
    brightness: float = 0.1
    noise: float = 0.05
    blur: float = 1.0
    zoom: float = 0.5


def augment(how: Augment, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, source: Generator) -> Pair:
    """The crop and its label after one random round of changes; values stay in [0, 1], labels stay whole numbers."""
    x, label = _flip(how, x, label, source)
    x, label = _move(how, x, label, source)
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
    if label is not None and -3 in axes:
        label = _swapped(how, label)
    return x.flip(axes), None if label is None else label.flip(axes)


def _swapped(how: Augment, label: Int[Tensor, "i j k"]) -> Int[Tensor, "i j k"]:
    """A stored volume runs from left to right along i, so that a mirror along i makes a left kidney a right one."""
    other = {a: b for pair in how.swap for a, b in (pair, pair[::-1])}
    new = label.clone()
    for a, b in other.items():
        new[label == a] = b
    return new


def _move(how: Augment, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, source: Generator) -> Pair:
    """Turns, scales and bends, in one resampling: linear for the image, nearest for the label."""
    turns, bends = _chance(how, source), _chance(how, source) and how.elastic > 0
    if not turns and not bends:
        return x, label
    matrix = _turned(how, x, source) if turns else torch.eye(3)
    grid = F.affine_grid(torch.cat([matrix, torch.zeros(3, 1)], 1)[None], [1, 1, *x.shape[1:]], align_corners=False)
    if bends:
        grid = grid + _bent(how, x, source)
    moved = F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    if label is None:
        return moved, None
    near = F.grid_sample(label[None, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, near[0, 0].to(label.dtype)


def _turned(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "3 3"]:
    """A rotation in voxels about the middle, and a scale."""
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
    return turn * half[None] / half[:, None]


def _bent(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "1 i j k 3"]:
    """How far each voxel is moved, in half widths."""
    step = 2 / (CONTROL - 1)
    moves = torch.randn(1, 3, CONTROL, CONTROL, CONTROL, generator=source) * _uniform(source, 0, how.elastic)
    moves = moves.clamp(-FURTHEST, FURTHEST) * step
    return F.interpolate(moves, size=x.shape[1:], mode="trilinear", align_corners=True).movedim(1, -1)


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
    coarse = F.interpolate(x[None], size=small, mode="trilinear", align_corners=False)
    return F.interpolate(coarse, size=x.shape[1:], mode="trilinear", align_corners=False)[0]


def _noise(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    return x + _uniform(source, 0, how.noise) * torch.randn(x.shape, generator=source)


def _light(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = _uniform(source, 1 - how.contrast, 1 + how.contrast)
    return (x - mean) * contrast + mean + _uniform(source, -how.brightness, how.brightness)


def _gamma(how: Augment, x: Float[Tensor, "c i j k"], source: Generator) -> Float[Tensor, "c i j k"]:
    return x.clamp(0, 1) ** math.exp(_uniform(source, -how.gamma, how.gamma))

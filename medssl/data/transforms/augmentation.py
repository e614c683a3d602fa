"""Augments a crop and its label together, as a pure function of both and a random generator."""

import math

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.settings import Settings

CONTROL_POINTS = 5  # of an elastic deformation, along each axis
MAX_DISPLACEMENT = 0.4  # of a control point, in distances between them; below 0.5 neighbours never change places

ImageAndLabel = tuple[Float[Tensor, "c i j k"], Int[Tensor, "i j k"] | None]


class AugmentConfig(Settings):
    """Probability and strength of each random change.

    The defaults follow nnU-Net's: Isensee et al., nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation, 2021, https://doi.org/10.1038/s41592-020-01008-z. They are milder, as suits few
    epochs, and do not mirror left and right, which the names of paired organs depend on. `elastic` deforms as in
    Ronneberger et al., U-Net, 2015, https://arxiv.org/abs/1505.04597: few control points move at random, with linear
    interpolation in between. It shares the resampling of rotation and scaling, and never folds.
    """

    probability: float = Field(0.3, ge=0, le=1, description="probability of each change except flips")
    flip: tuple[bool, bool, bool] = Field(
        (False, True, True), description="axes to mirror with probability 0.5: left-right, back-front, up-down"
    )
    left_right_pairs: tuple[tuple[int, int], ...] = Field(
        (), description="pairs of label values that a left-right mirror exchanges"
    )
    rotate_deg: float = Field(15.0, description="largest rotation about each axis, in degrees")
    scale: float = Field(0.15, description="largest change of size, as a fraction")
    elastic: float = Field(
        0.1,
        ge=0,
        le=0.2,
        description="largest standard deviation of an elastic deformation, in control point distances",
    )
    gamma: float = Field(0.3, description="largest absolute logarithm of the gamma exponent")
    contrast: float = Field(0.25, description="largest change of contrast, as a fraction")
    brightness: float = Field(0.1, description="largest change of brightness, in units of network input")
    noise: float = Field(0.05, description="largest standard deviation of Gaussian noise, in units of network input")
    blur: float = Field(1.0, description="largest standard deviation of Gaussian blur, in voxels")
    zoom: float = Field(0.5, description="lowest resolution of a simulated coarse scan, as a fraction of the original")


def augment(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, generator: Generator
) -> ImageAndLabel:
    """Applies one random round of changes to a crop and its label.

    Args:
        config: Probability and strength of each change.
        x: Intensities in [0, 1]; the result stays within them.
        label: Label values, which are never interpolated; None for a crop without label.
        generator: Source of all randomness.
    """
    x, label = _flip(config, x, label, generator)
    x, label = _resample(config, x, label, generator)
    for change in (_blur, _lower_resolution, _add_noise, _change_contrast_and_brightness, _apply_gamma):
        if _draw_chance(config, generator):
            x = change(config, x, generator)
    return x.clamp(0, 1), label


def _draw_uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _draw_chance(config: AugmentConfig, generator: Generator) -> bool:
    return _draw_uniform(generator, 0, 1) < config.probability


def _flip(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, generator: Generator
) -> ImageAndLabel:
    coins = torch.rand(3, generator=generator).tolist()
    axes = [axis - 3 for axis in range(3) if config.flip[axis] and coins[axis] < 0.5]
    if label is not None and -3 in axes:
        label = _swap_left_right(config, label)
    return x.flip(axes), None if label is None else label.flip(axes)


def _swap_left_right(config: AugmentConfig, label: Int[Tensor, "i j k"]) -> Int[Tensor, "i j k"]:
    """Exchanges the label values of left and right; stored volumes run from left to right along i."""
    counterpart = {a: b for pair in config.left_right_pairs for a, b in (pair, pair[::-1])}
    swapped = label.clone()
    for a, b in counterpart.items():
        swapped[label == a] = b
    return swapped


def _resample(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], label: Int[Tensor, "i j k"] | None, generator: Generator
) -> ImageAndLabel:
    """Rotates, scales and deforms in one resampling: linear for the image, nearest for the label."""
    has_rotation = _draw_chance(config, generator)
    has_elastic = _draw_chance(config, generator) and config.elastic > 0
    if not has_rotation and not has_elastic:
        return x, label
    matrix = _draw_rotation_and_scale(config, x, generator) if has_rotation else torch.eye(3)
    grid = F.affine_grid(torch.cat([matrix, torch.zeros(3, 1)], 1)[None], [1, 1, *x.shape[1:]], align_corners=False)
    if has_elastic:
        grid = grid + _draw_elastic_displacement(config, x, generator)
    image = F.grid_sample(x[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    if label is None:
        return image, None
    nearest = F.grid_sample(label[None, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return image, nearest[0, 0].to(label.dtype)


def _draw_rotation_and_scale(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator
) -> Float[Tensor, "3 3"]:
    """Draws a rotation, rigid in voxels, about the centre of the crop, and a scale."""
    rotation = torch.eye(3)
    for axis in range(3):
        angle = math.radians(_draw_uniform(generator, -config.rotate_deg, config.rotate_deg))
        a, b = [other for other in range(3) if other != axis]
        about_axis = torch.eye(3)
        about_axis[a, a] = about_axis[b, b] = math.cos(angle)
        about_axis[a, b], about_axis[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ about_axis
    rotation = rotation / _draw_uniform(generator, 1 - config.scale, 1 + config.scale)
    # grid_sample counts in half widths, and orders axes k j i: a rotation in voxels is conjugated by the shape.
    half_widths = torch.tensor(x.shape[:0:-1], dtype=torch.float32)
    return rotation * half_widths[None] / half_widths[:, None]


def _draw_elastic_displacement(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator
) -> Float[Tensor, "1 i j k 3"]:
    """Draws a smooth displacement of each voxel, in half widths of the crop."""
    step = 2 / (CONTROL_POINTS - 1)
    noise = torch.randn(1, 3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS, generator=generator)
    displacement = noise * _draw_uniform(generator, 0, config.elastic)
    displacement = displacement.clamp(-MAX_DISPLACEMENT, MAX_DISPLACEMENT) * step
    return F.interpolate(displacement, size=x.shape[1:], mode="trilinear", align_corners=True).movedim(1, -1)


def _blur(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> Float[Tensor, "c i j k"]:
    """Blurs with a Gaussian of up to `blur` voxels, one axis after the other."""
    sigma = _draw_uniform(generator, 0.3, max(0.3, config.blur))
    radius = math.ceil(2 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(x)
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        pad = [0] * 6
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
        x = F.conv3d(F.pad(x[:, None], pad, mode="replicate"), kernel.view(shape))[:, 0]
    return x


def _lower_resolution(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Resamples to a coarser grid and back."""
    zoom = _draw_uniform(generator, config.zoom, 1)
    coarse_shape = [max(1, round(n * zoom)) for n in x.shape[1:]]
    coarse = F.interpolate(x[None], size=coarse_shape, mode="trilinear", align_corners=False)
    return F.interpolate(coarse, size=x.shape[1:], mode="trilinear", align_corners=False)[0]


def _add_noise(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> Float[Tensor, "c i j k"]:
    return x + _draw_uniform(generator, 0, config.noise) * torch.randn(x.shape, generator=generator)


def _change_contrast_and_brightness(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator
) -> Float[Tensor, "c i j k"]:
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = _draw_uniform(generator, 1 - config.contrast, 1 + config.contrast)
    return (x - mean) * contrast + mean + _draw_uniform(generator, -config.brightness, config.brightness)


def _apply_gamma(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> Float[Tensor, "c i j k"]:
    return x.clamp(0, 1) ** math.exp(_draw_uniform(generator, -config.gamma, config.gamma))

"""Augments a crop and its label together, in millimetres, as a pure function of the scan and a random generator."""

import math
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.data.transforms.spatial import (
    ImageAndLabel,
    PerAxis,
    ReadBox,
    Spacing,
    SpatialTransform,
    Triple,
    draw_control_points,
    draw_rotation_and_scale,
    draw_uniform_number,
    spread_over_axes,
)
from medssl.settings import Settings

ElasticStrength = Annotated[float, Field(ge=0, le=0.2)]


class AugmentConfig(Settings):
    """Probability and strength of each random change.

    The defaults follow nnU-Net's: Isensee et al., nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation, 2021, https://doi.org/10.1038/s41592-020-01008-z. They are milder, as suits few
    epochs, and do not mirror left and right, which the names of paired organs depend on. All changes of geometry act
    in millimetres. Where voxels are at least three times as long along one axis as along another, slices are thick:
    as in nnU-Net, they are then turned, scaled and deformed in their plane only. Keys with a value for each axis i, j,
    k state exactly what happens instead. `elastic` deforms as in Ronneberger et al., U-Net, 2015,
    https://arxiv.org/abs/1505.04597: few control points move at random, with linear interpolation in between. It
    shares the resampling of rotation and scaling, and never folds.
    """

    probability: float = Field(0.3, ge=0, le=1, description="probability of each change except flips")
    flip: tuple[bool, bool, bool] = Field(
        (False, True, True), description="axes to mirror with probability 0.5: left-right, back-front, up-down"
    )
    left_right_pairs: tuple[tuple[int, int], ...] = Field(
        (), description="pairs of label values that a left-right mirror exchanges"
    )
    rotate_deg: PerAxis = Field(
        15.0, description="largest rotation about each axis in degrees; one number turns thick slices in plane only"
    )
    scale: PerAxis = Field(
        0.15, description="largest change of size, as a fraction; one number scales thick slices in plane only"
    )
    elastic: ElasticStrength | tuple[ElasticStrength, ElasticStrength, ElasticStrength] = Field(
        0.1,
        description="largest standard deviation of an elastic deformation along each axis, in control point distances"
        " (a quarter of the crop's longest side); one number deforms thick slices in plane only",
    )
    gamma: float = Field(0.3, description="largest absolute logarithm of the gamma exponent")
    contrast: float = Field(0.25, description="largest change of contrast, as a fraction")
    brightness: float = Field(0.1, description="largest change of brightness, in units of network input")
    noise: float = Field(0.05, description="largest standard deviation of Gaussian noise, in units of network input")
    blur: float = Field(
        1.0, description="largest standard deviation of Gaussian blur, in shortest voxel sides; equal along all axes"
    )
    zoom: float = Field(
        0.5, description="lowest resolution of a simulated coarse scan, as a fraction of that along the finest axis"
    )


def augment(
    config: AugmentConfig, read: ReadBox, size: Triple, spacing_mm: Spacing, generator: Generator
) -> ImageAndLabel:
    """Cuts a crop with one random round of changes.

    Args:
        config: Probability and strength of each change.
        read: Returns the intensities in [0, 1] and the label values (None for a scan without label) of a box of the
            scan. Its corner is relative to that of the crop; turned crops need boxes that reach beyond the crop, so
            that nothing but the scan enters.
        size: Shape of the crop in voxels.
        spacing_mm: Voxel spacing of the scan.
        generator: Source of all randomness.

    Returns:
        Intensities in [0, 1], and label values, which are never interpolated.
    """
    transform = draw_spatial_transform(config, size, spacing_mm, generator)
    x, label = read((0, 0, 0), size) if transform is None else transform.resample(read)
    x, label = _flip(config, x, label, generator)
    for change in (_blur, _lower_resolution):
        if _draw_chance(config, generator):
            x = change(config, x, spacing_mm, generator)
    for change_values in (_add_noise, _change_contrast_and_brightness, _apply_gamma):
        if _draw_chance(config, generator):
            change_values(config, x, generator)  # in place: a flip, also about no axis, has copied the crop
    return x.clamp_(0, 1), label


def draw_spatial_transform(
    config: AugmentConfig, size: Triple, spacing_mm: Spacing, generator: Generator
) -> SpatialTransform | None:
    """Draws a rotation with a scale, and an elastic deformation, each with its probability; None if neither is due."""
    has_rotation, has_elastic = _draw_chance(config, generator), _draw_chance(config, generator)
    has_rotation = has_rotation and (config.rotate_deg, config.scale) != (0, 0)
    elastic = spread_over_axes(config.elastic, spacing_mm)
    has_elastic = has_elastic and max(elastic) > 0
    if not has_rotation and not has_elastic:
        return None
    matrix = torch.eye(3)
    if has_rotation:
        matrix = draw_rotation_and_scale(config.rotate_deg, config.scale, spacing_mm, generator)
    control_points = draw_control_points(elastic, size, spacing_mm, generator) if has_elastic else None
    return SpatialTransform(matrix, control_points, size)


def _draw_chance(config: AugmentConfig, generator: Generator) -> bool:
    return draw_uniform_number(generator, 0, 1) < config.probability


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


def _blur(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Blurs with a Gaussian of equal width in mm along all axes, one axis after the other."""
    sigma = draw_uniform_number(generator, 0.3, max(0.3, config.blur))
    for axis, mm in enumerate(spacing_mm):
        sigma_voxels = sigma * min(spacing_mm) / mm
        radius = math.ceil(2 * sigma_voxels)
        weights = torch.exp(-0.5 * (torch.arange(radius + 1) / sigma_voxels) ** 2)
        x = convolve(x, (weights / (2 * weights.sum() - weights[0])).tolist(), 1 + axis)
    return x


def convolve(x: Float[Tensor, "c i j k"], weights: list[float], axis: int) -> Float[Tensor, "c i j k"]:
    """Convolves an axis with a symmetric kernel, beyond the ends with the last voxel.

    Sums of shifted copies take a tenth of the time of torch's convolution of one channel on a CPU.

    Args:
        x: A crop.
        weights: The kernel from its centre outwards.
        axis: Axis of the crop.
    """
    n = x.shape[axis]
    result = x * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        ends, inside = min(shift, n), max(0, n - shift)
        result.narrow(axis, 0, inside).add_(x.narrow(axis, n - inside, inside), alpha=weight)
        result.narrow(axis, inside, ends).add_(x.narrow(axis, n - 1, 1), alpha=weight)
        result.narrow(axis, n - inside, inside).add_(x.narrow(axis, 0, inside), alpha=weight)
        result.narrow(axis, 0, ends).add_(x.narrow(axis, 0, 1), alpha=weight)
    return result


def _lower_resolution(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Resamples to a coarser grid of equal spacing, and back; an axis that is coarser already keeps its voxels."""
    coarse_mm = min(spacing_mm) / draw_uniform_number(generator, config.zoom, 1)
    coarse_shape = [max(1, round(n * min(1.0, mm / coarse_mm))) for n, mm in zip(x.shape[1:], spacing_mm, strict=True)]
    coarse = F.interpolate(x[None], size=coarse_shape, mode="trilinear", align_corners=False)
    return F.interpolate(coarse, size=x.shape[1:], mode="trilinear", align_corners=False)[0]


def _add_noise(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> None:
    level = draw_uniform_number(generator, 0, config.noise)
    x.add_(torch.randn(x.shape, generator=generator), alpha=level)


def _change_contrast_and_brightness(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> None:
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = draw_uniform_number(generator, 1 - config.contrast, 1 + config.contrast)
    brightness = draw_uniform_number(generator, -config.brightness, config.brightness)
    x.mul_(contrast).add_(mean * (1 - contrast) + brightness)


def _apply_gamma(config: AugmentConfig, x: Float[Tensor, "c i j k"], generator: Generator) -> None:
    x.clamp_(0, 1).pow_(math.exp(draw_uniform_number(generator, -config.gamma, config.gamma)))

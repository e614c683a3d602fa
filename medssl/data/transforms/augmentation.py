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

Matrix = Float[Tensor, "n n"]
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
    x = _lower_quality(config, x, spacing_mm, generator)
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


def _lower_quality(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Blurs a crop, and simulates a coarse scan, each with its probability.

    Both act along one axis after the other. Their matrices are multiplied first, so that both cost no more than one,
    and a multiplication of matrices takes a fraction of the time of torch's own operators for volumes on a CPU.
    """
    changes = [matrices for matrices in (make_blur, make_coarse_scan) if _draw_chance(config, generator)]
    if not changes:
        return x
    shape = (x.shape[1], x.shape[2], x.shape[3])
    matrices = [change(config, shape, spacing_mm, generator) for change in changes]
    for axis, of_axis in enumerate(zip(*matrices, strict=True)):
        x = multiply_axis(of_axis[-1] @ of_axis[0] if len(of_axis) > 1 else of_axis[0], x, axis)
    return x


def make_blur(config: AugmentConfig, shape: Triple, spacing_mm: Spacing, generator: Generator) -> list[Matrix]:
    """Returns for each axis the matrix of a Gaussian blur of equal width in mm; the last voxel goes on beyond the ends.

    Args:
        config: Largest width.
        shape: Shape of the crop in voxels.
        spacing_mm: Voxel spacing.
        generator: Source of the width.
    """
    sigma, matrices = draw_uniform_number(generator, 0.3, max(0.3, config.blur)), []
    for n, mm in zip(shape, spacing_mm, strict=True):
        sigma_voxels = sigma * min(spacing_mm) / mm
        radius = math.ceil(2 * sigma_voxels)
        shifts = torch.arange(-radius, radius + 1)
        weights = torch.exp(-0.5 * (shifts / sigma_voxels) ** 2)
        sources = (torch.arange(n)[:, None] + shifts).clamp(0, n - 1)
        matrices.append(torch.zeros(n, n).scatter_add_(1, sources, (weights / weights.sum()).expand(n, -1)))
    return matrices


def make_coarse_scan(config: AugmentConfig, shape: Triple, spacing_mm: Spacing, generator: Generator) -> list[Matrix]:
    """Returns for each axis the matrix that resamples to a coarser grid of equal spacing, and back.

    An axis that is coarser already keeps its voxels.

    Args:
        config: Lowest resolution.
        shape: Shape of the crop in voxels.
        spacing_mm: Voxel spacing.
        generator: Source of the resolution.
    """
    coarse_mm, matrices = min(spacing_mm) / draw_uniform_number(generator, config.zoom, 1), []
    for n, mm in zip(shape, spacing_mm, strict=True):
        coarse = max(1, round(n * min(1.0, mm / coarse_mm)))
        voxels = torch.eye(n)[None]
        down = F.interpolate(voxels, size=coarse, mode="linear", align_corners=False)
        matrices.append(F.interpolate(down, size=n, mode="linear", align_corners=False)[0].T)
    return matrices


def multiply_axis(matrix: Matrix, x: Float[Tensor, "c i j k"], axis: int) -> Float[Tensor, "c i j k"]:
    """Multiplies a matrix with each row of voxels along an axis."""
    if axis == 0:
        return (matrix @ x.flatten(2)).view_as(x)
    return matrix @ x if axis == 1 else x @ matrix.T


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

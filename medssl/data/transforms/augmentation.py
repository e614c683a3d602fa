"""Augments a crop and its label together, in millimetres, as a pure function of the scan and a random generator."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.settings import Settings

CONTROL_INTERVALS = 4  # between the control points of an elastic deformation, along the longest side of a crop
MAX_DISPLACEMENT = 0.4  # of a control point, in distances between them; below 0.5 neighbours never change places
THICK_SLICE_RATIO = 3  # of voxel sides, from which nnU-Net treats a scan as a stack of slices

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
ElasticStrength = Annotated[float, Field(ge=0, le=0.2)]
PerAxis = float | tuple[float, float, float]
ImageAndLabel = tuple[Float[Tensor, "c i j k"], Int[Tensor, "i j k"] | None]
ReadBox = Callable[[Triple, Triple], ImageAndLabel]


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


@dataclass(frozen=True)
class SpatialTransform:
    """Maps each voxel of a crop to the place in the scan that it is read from.

    Attributes:
        matrix: Rotation and scale about the centre of the crop, from voxels to voxels.
        displacement: Elastic displacement of each voxel in voxels; None for none.
        size: Shape of the crop in voxels.
    """

    matrix: Float[Tensor, "3 3"]
    displacement: Float[Tensor, "3 i j k"] | None
    size: Triple

    def source_positions(self) -> Float[Tensor, "3 i j k"]:
        """Returns the voxel index in the scan that each voxel is read from, counted from the corner of the crop."""
        axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in self.size]
        centred = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        positions = torch.einsum("ab,bijk->aijk", self.matrix, centred)
        positions = positions if self.displacement is None else positions + self.displacement
        return positions + (torch.tensor(self.size, dtype=torch.float32) - 1)[:, None, None, None] / 2

    def resample(self, read: ReadBox) -> ImageAndLabel:
        """Reads the part of the scan that the crop needs and resamples it: linear for the image, nearest for the label.

        Args:
            read: Returns image and label of a box of the scan, from its corner relative to the crop's and its shape.
        """
        positions = self.source_positions()
        flat = positions.flatten(1)
        corner = [math.floor(low) for low in flat.amin(1).tolist()]
        size = [max(2, math.ceil(high) + 1 - low) for low, high in zip(corner, flat.amax(1).tolist(), strict=True)]
        image, label = read((corner[0], corner[1], corner[2]), (size[0], size[1], size[2]))
        # grid_sample counts from -1 at the first voxel to 1 at the last one, and orders axes k j i.
        last = torch.tensor(size, dtype=torch.float32)[:, None, None, None] - 1
        origin = torch.tensor(corner, dtype=torch.float32)[:, None, None, None]
        grid = (2 * (positions - origin) / last - 1).flip(0).movedim(0, -1)[None]
        resampled = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
        if label is None:
            return resampled, None
        nearest = F.grid_sample(
            label[None, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True
        )
        return resampled, nearest[0, 0].to(label.dtype)


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
            x = change_values(config, x, generator)
    return x.clamp(0, 1), label


def draw_spatial_transform(
    config: AugmentConfig, size: Triple, spacing_mm: Spacing, generator: Generator
) -> SpatialTransform | None:
    """Draws a rotation with a scale, and an elastic deformation, each with its probability; None if neither is due."""
    has_rotation, has_elastic = _draw_chance(config, generator), _draw_chance(config, generator)
    elastic = _per_axis(config.elastic, spacing_mm)
    has_elastic = has_elastic and max(elastic) > 0
    has_rotation = has_rotation and (config.rotate_deg, config.scale) != (0, 0)
    if not has_rotation and not has_elastic:
        return None
    matrix = _draw_rotation_and_scale(config, spacing_mm, generator) if has_rotation else torch.eye(3)
    displacement = _draw_elastic_displacement(elastic, size, spacing_mm, generator) if has_elastic else None
    return SpatialTransform(matrix, displacement, size)


def find_thick_axis(spacing_mm: Spacing) -> int | None:
    """Returns the axis across thick slices; None if no voxel side is three times as long as another."""
    if max(spacing_mm) < THICK_SLICE_RATIO * min(spacing_mm):
        return None
    return spacing_mm.index(max(spacing_mm))


def _per_axis(strength: PerAxis, spacing_mm: Spacing) -> Spacing:
    """Returns the strength along each axis; one number spares the axis across thick slices."""
    thick = find_thick_axis(spacing_mm)
    i, j, k = strength if isinstance(strength, tuple) else (0.0 if axis == thick else strength for axis in range(3))
    return i, j, k


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


def _draw_rotation_and_scale(config: AugmentConfig, spacing_mm: Spacing, generator: Generator) -> Float[Tensor, "3 3"]:
    """Draws a rotation, rigid in mm, and a scale, as a matrix from voxels to voxels."""
    thick = find_thick_axis(spacing_mm)
    rotation = torch.eye(3)
    for axis in range(3):
        if isinstance(config.rotate_deg, tuple):
            largest = config.rotate_deg[axis]
        else:
            largest = config.rotate_deg if thick in (None, axis) else 0.0
        angle = math.radians(_draw_uniform(generator, -largest, largest))
        a, b = [other for other in range(3) if other != axis]
        about_axis = torch.eye(3)
        about_axis[a, a] = about_axis[b, b] = math.cos(angle)
        about_axis[a, b], about_axis[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ about_axis
    draws = [_draw_uniform(generator, -1, 1) for _ in range(3)]
    if not isinstance(config.scale, tuple):
        draws = draws[:1] * 3
    strengths = _per_axis(config.scale, spacing_mm)
    factors = torch.tensor([1 + strength * draw for strength, draw in zip(strengths, draws, strict=True)])
    spacing = torch.tensor(spacing_mm, dtype=torch.float32)
    return rotation * (spacing / factors)[None] / spacing[:, None]


def _draw_elastic_displacement(
    strengths: Spacing, size: Triple, spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "3 i j k"]:
    """Draws a smooth displacement of each voxel, in voxels.

    Control points are equally far from each other in mm along all axes. An axis that is not deformed has one: all
    slices of a stack move alike.
    """
    sides = [n * mm for n, mm in zip(size, spacing_mm, strict=True)]
    distance_mm = max(sides) / CONTROL_INTERVALS
    counts = [
        math.ceil(side / distance_mm - 1e-6) + 1 if strength > 0 else 1
        for side, strength in zip(sides, strengths, strict=True)
    ]
    amplitude = _draw_uniform(generator, 0, 1)
    noise = torch.randn(3, *counts, generator=generator) * torch.tensor(strengths)[:, None, None, None] * amplitude
    displacement_mm = noise.clamp(-MAX_DISPLACEMENT, MAX_DISPLACEMENT) * distance_mm
    weights = [
        _interpolation_weights(n, mm / distance_mm, count)
        for n, mm, count in zip(size, spacing_mm, counts, strict=True)
    ]
    dense = torch.einsum("dpqr,ip,jq,kr->dijk", displacement_mm, *weights)
    return dense / torch.tensor(spacing_mm, dtype=torch.float32)[:, None, None, None]


def _interpolation_weights(voxels: int, step: float, count: int) -> Float[Tensor, "n p"]:
    """Returns the weight of each control point in each voxel; `step` is a voxel in distances of control points."""
    position = ((torch.arange(voxels) + 0.5) * step).clamp(max=count - 1)
    return (1 - (position[:, None] - torch.arange(count)).abs()).clamp(min=0) if count > 1 else torch.ones(voxels, 1)


def _blur(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Blurs with a Gaussian of equal width in mm along all axes, one axis after the other."""
    sigma = _draw_uniform(generator, 0.3, max(0.3, config.blur))
    for axis, mm in enumerate(spacing_mm):
        sigma_voxels = sigma * min(spacing_mm) / mm
        radius = math.ceil(2 * sigma_voxels)
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_voxels) ** 2)
        kernel = (kernel / kernel.sum()).to(x)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        pad = [0] * 6
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
        x = F.conv3d(F.pad(x[:, None], pad, mode="replicate"), kernel.view(shape))[:, 0]
    return x


def _lower_resolution(
    config: AugmentConfig, x: Float[Tensor, "c i j k"], spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "c i j k"]:
    """Resamples to a coarser grid of equal spacing, and back; an axis that is coarser already keeps its voxels."""
    coarse_mm = min(spacing_mm) / _draw_uniform(generator, config.zoom, 1)
    coarse_shape = [max(1, round(n * min(1.0, mm / coarse_mm))) for n, mm in zip(x.shape[1:], spacing_mm, strict=True)]
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

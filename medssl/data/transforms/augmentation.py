"""Augments a crop and its label together, in millimetres, as a pure function of the scan and a random generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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

Matrix = Float[Tensor, "_ _"]  # square, of a size for each axis
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


@dataclass(frozen=True)
class Augmentation:
    """One round of random changes of a crop, drawn on the CPU and applied on any device.

    Attributes:
        spatial: Rotation, scale and elastic deformation; None for none.
        mirrored_axes: Axes to mirror, counted from the last one: -3 to -1.
        exchanged_labels: Pairs of label values to exchange.
        quality: Matrices along i, j, k that blur and simulate a coarse scan; empty for neither.
        noise: Gaussian noise with a standard deviation of 1; None for none.
        noise_level: Factor on the noise.
        contrast: Factor on the distance of a voxel from the mean of its channel; None leaves the brightness too.
        brightness: Change of the brightness.
        gamma: Exponent of the intensities; None for none.
    """

    spatial: SpatialTransform | None
    mirrored_axes: tuple[int, ...]
    exchanged_labels: tuple[tuple[int, int], ...]
    quality: tuple[Matrix, ...]
    noise: Float[Tensor, "c i j k"] | None
    noise_level: float
    contrast: float | None
    brightness: float
    gamma: float | None

    def apply(self, corner: Triple, x: Float[Tensor, "c x y z"], label: Int[Tensor, "x y z"] | None) -> ImageAndLabel:
        """Returns the changed crop; neither argument changes.

        Args:
            corner: First voxel of the box that is given, relative to that of the crop.
            x: Intensities in [0, 1].
            label: Label values, which are never interpolated.
        """
        if self.spatial is not None:
            x, label = self.spatial.resample(corner, x, label)
        if label is not None:
            label = _exchange_labels(label, self.exchanged_labels).flip(self.mirrored_axes)
        x = multiply_axes(self.quality, x.flip(self.mirrored_axes))
        # In place from here on: a flip, also about no axis, has copied the crop.
        if self.noise is not None:
            x.add_(self.noise, alpha=self.noise_level)
        if self.contrast is not None:
            mean = x.mean((1, 2, 3), keepdim=True)
            x.mul_(self.contrast).add_(mean * (1 - self.contrast) + self.brightness)
        if self.gamma is not None:
            x.clamp_(0, 1).pow_(self.gamma)
        return x.clamp_(0, 1), label


@dataclass(frozen=True)
class PendingView:
    """A box of a scan, and the changes that make a crop of it.

    Attributes:
        x: Intensities in [0, 1].
        label: Label values; None for a scan without label.
        corner: First voxel of the box, relative to that of the crop; turned crops need boxes that reach beyond them.
        augmentation: The changes; None if the box is the crop.
    """

    x: Float[Tensor, "c x y z"]
    label: Int[Tensor, "x y z"] | None
    corner: Triple = (0, 0, 0)
    augmentation: Augmentation | None = None

    def augment(self) -> ImageAndLabel:
        """Returns intensities in [0, 1] and label values of the crop."""
        if self.augmentation is None:
            return self.x, self.label
        return self.augmentation.apply(self.corner, self.x, self.label)


def augment(
    config: AugmentConfig, read: ReadBox, size: Triple, spacing_mm: Spacing, generator: Generator
) -> ImageAndLabel:
    """Cuts a crop with one random round of changes; see `draw_view` for the arguments.

    Returns:
        Intensities in [0, 1], and label values, which are never interpolated.
    """
    return draw_view(config, read, size, spacing_mm, generator).augment()


def draw_view(
    config: AugmentConfig, read: ReadBox, size: Triple, spacing_mm: Spacing, generator: Generator
) -> PendingView:
    """Draws one random round of changes and reads what it needs of the scan.

    Args:
        config: Probability and strength of each change.
        read: Returns the intensities in [0, 1] and the label values (None for a scan without label) of a box of the
            scan, from its corner relative to that of the crop and its shape.
        size: Shape of the crop in voxels.
        spacing_mm: Voxel spacing of the scan.
        generator: Source of all randomness.
    """
    spatial = draw_spatial_transform(config, size, spacing_mm, generator)
    corner, shape = ((0, 0, 0), size) if spatial is None else spatial.find_box()
    x, label = read(corner, shape)
    coins = torch.rand(3, generator=generator).tolist()
    mirrored_axes = tuple(axis - 3 for axis in range(3) if config.flip[axis] and coins[axis] < 0.5)
    exchanged_labels = config.left_right_pairs if -3 in mirrored_axes else ()  # i runs from left to right
    quality = _draw_quality(config, size, spacing_mm, generator)
    noise, noise_level, contrast, brightness, gamma = None, 0.0, None, 0.0, None
    if _draw_chance(config, generator):
        noise_level = draw_uniform_number(generator, 0, config.noise)
        noise = torch.randn(len(x), *size, generator=generator)
    if _draw_chance(config, generator):
        contrast = draw_uniform_number(generator, 1 - config.contrast, 1 + config.contrast)
        brightness = draw_uniform_number(generator, -config.brightness, config.brightness)
    if _draw_chance(config, generator):
        gamma = math.exp(draw_uniform_number(generator, -config.gamma, config.gamma))
    augmentation = Augmentation(
        spatial, mirrored_axes, exchanged_labels, quality, noise, noise_level, contrast, brightness, gamma
    )
    return PendingView(x, label, corner, augmentation)


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


def _exchange_labels(label: Int[Tensor, "i j k"], pairs: Sequence[tuple[int, int]]) -> Int[Tensor, "i j k"]:
    """Exchanges the two label values of each pair."""
    if not pairs:
        return label
    exchanged = label.clone()
    for a, b in pairs:
        exchanged[label == a], exchanged[label == b] = b, a
    return exchanged


def _draw_quality(config: AugmentConfig, size: Triple, spacing_mm: Spacing, generator: Generator) -> tuple[Matrix, ...]:
    """Draws a blur and a simulated coarse scan, each with its probability, as one matrix along each axis.

    Both act along one axis after the other. Their matrices are multiplied first, so that both cost no more than one,
    and a multiplication of matrices takes a fraction of the time of torch's own operators for volumes on a CPU.
    """
    changes = [matrices for matrices in (make_blur, make_coarse_scan) if _draw_chance(config, generator)]
    matrices = [change(config, size, spacing_mm, generator) for change in changes]
    return tuple(axis[-1] @ axis[0] if len(axis) > 1 else axis[0] for axis in zip(*matrices, strict=True))


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


def multiply_axes(matrices: Sequence[Matrix], x: Float[Tensor, "c i j k"]) -> Float[Tensor, "c i j k"]:
    """Multiplies the matrix of each axis with the rows of voxels along it; no matrices change nothing."""
    for axis, matrix in enumerate(matrices):
        x = multiply_axis(matrix, x, axis)
    return x


def multiply_axis(matrix: Matrix, x: Float[Tensor, "c i j k"], axis: int) -> Float[Tensor, "c i j k"]:
    """Multiplies a matrix with each row of voxels along an axis."""
    if axis == 0:
        return (matrix @ x.flatten(2)).view_as(x)
    return matrix @ x if axis == 1 else x @ matrix.T

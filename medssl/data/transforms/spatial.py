"""Draws and applies changes of a crop's geometry: rotation, scale and elastic deformation, in one resampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

CONTROL_INTERVALS = 4  # between the control points of an elastic deformation, along the longest side of a crop
MAX_DISPLACEMENT = 0.4  # of a control point, in distances between them; below 0.5 neighbours never change places
THICK_SLICE_RATIO = 3  # of voxel sides, from which nnU-Net treats a scan as a stack of slices
SLAB = 4  # planes that are resampled at once on a CPU; their positions fit into the cache of a processor

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
PerAxis = float | tuple[float, float, float]
ImageAndLabel = tuple[Float[Tensor, "c i j k"], Int[Tensor, "i j k"] | None]
ReadBox = Callable[[Triple, Triple], ImageAndLabel]
Coordinates = tuple[Tensor, Tensor, Tensor]  # of voxels along i, j, k


@dataclass(frozen=True)
class ControlPoints:
    """An elastic deformation: displacements of a grid of points, interpolated linearly in between.

    Attributes:
        displacement: Displacement of each point in voxels.
        steps: A voxel in distances of control points, along i, j, k.
    """

    displacement: Float[Tensor, "3 p q r"]
    steps: Spacing

    def weights(self, coordinates: Tensor, axis: int) -> Float[Tensor, "n p"]:
        """Returns the weight of each control point along an axis at voxel coordinates."""
        count = self.displacement.shape[1 + axis]
        if count == 1:
            return coordinates.new_ones(len(coordinates), 1)
        position = ((coordinates + 0.5) * self.steps[axis]).clamp(max=count - 1)
        points = torch.arange(count, device=coordinates.device)
        return (1 - (position[:, None] - points).abs()).clamp(min=0)

    def knots(self, axis: int) -> list[float]:
        """Returns the voxel coordinates of the control points along an axis, where the deformation has its kinks."""
        return [point / self.steps[axis] - 0.5 for point in range(self.displacement.shape[1 + axis])]


@dataclass(frozen=True)
class SpatialTransform:
    """Maps each voxel of a crop to the place in the scan that it is read from.

    Attributes:
        matrix: Rotation and scale about the centre of the crop, from voxels to voxels.
        elastic: Elastic deformation; None for none.
        size: Shape of the crop in voxels.
    """

    matrix: Float[Tensor, "3 3"]
    elastic: ControlPoints | None
    size: Triple

    def source_positions(self) -> Float[Tensor, "3 i j k"]:
        """Returns the voxel index in the scan that each voxel is read from, counted from the corner of the crop."""
        return multiply_rows(*self._factorize(self._list_coordinates()))

    def find_box(self) -> tuple[Triple, Triple]:
        """Returns the box of the scan that the crop is read from: its corner, relative to the crop's, and its shape."""
        low, high = self._find_bounds()
        i, j, k = (math.floor(value) for value in low)
        x, y, z = (max(2, math.ceil(value) + 1 - first) for first, value in zip((i, j, k), high, strict=True))
        return (i, j, k), (x, y, z)

    def resample(
        self, corner: Triple, image: Float[Tensor, "c x y z"], label: Int[Tensor, "x y z"] | None
    ) -> ImageAndLabel:
        """Resamples the box of `find_box`: linear for the image, nearest for the label.

        Args:
            corner: First voxel of the box, relative to that of the crop.
            image: Intensities of the box.
            label: Label values of the box.
        """
        columns, rows = self._factorize(self._list_coordinates())
        columns[..., -2] -= columns.new_tensor(corner)[:, None, None]
        resampled = image.new_empty(len(image), *self.size)
        nearest = None if label is None else label.new_empty(self.size)
        planes = SLAB if image.device.type == "cpu" else self.size[0]
        for start in range(0, self.size[0], planes):
            slab = slice(start, start + planes)
            positions = multiply_rows(columns[:, slab], rows)
            interpolate_linear(image, positions, resampled[:, slab])
            if label is not None and nearest is not None:
                nearest[slab] = take_nearest(label, positions)
        return resampled, nearest

    def _list_coordinates(self) -> Coordinates:
        """Returns the coordinates of the voxels of the crop along each axis."""
        i, j, k = (torch.arange(n, dtype=torch.float32, device=self.matrix.device) for n in self.size)
        return i, j, k

    def _factorize(self, coordinates: Coordinates) -> tuple[Float[Tensor, "3 i j r"], Float[Tensor, "r k"]]:
        """Returns factors of the positions at a grid of voxel coordinates, whose product over r they are.

        Along k a position is a line plus the elastic displacement between control points. The last two columns belong
        to the line: its value at the centre of the crop, and its slope.
        """
        i, j, k = (axis - (n - 1) / 2 for axis, n in zip(coordinates, self.size, strict=True))
        centre = (self.matrix.new_tensor(self.size) - 1)[:, None, None] / 2
        line = self.matrix[:, 0, None, None] * i[:, None] + self.matrix[:, 1, None, None] * j + centre
        columns = [torch.stack([line, self.matrix[:, 2, None, None].expand_as(line)], -1)]
        rows = [torch.stack([torch.ones_like(k), k])]
        if self.elastic is not None:
            weights = [self.elastic.weights(axis, number) for number, axis in enumerate(coordinates)]
            columns.insert(0, torch.einsum("dpqr,ip,jq->dijr", self.elastic.displacement, *weights[:2]))
            rows.insert(0, weights[2].T)
        return torch.cat(columns, -1), torch.cat(rows)

    def _find_bounds(self) -> tuple[list[float], list[float]]:
        """Returns the lowest and the highest position along each axis.

        Between the control points a position is linear along each axis, so that one of them, or a corner, is extreme.
        """
        axes = []
        for axis, last in enumerate(n - 1 for n in self.size):
            knots = self.elastic.knots(axis) if self.elastic is not None else []
            axes.append(torch.tensor([0.0, *(knot for knot in knots if 0 < knot < last), float(last)]))
        positions = multiply_rows(*self._factorize((axes[0], axes[1], axes[2]))).flatten(1)
        return positions.amin(1).tolist(), positions.amax(1).tolist()


def multiply_rows(columns: Float[Tensor, "3 i j r"], rows: Float[Tensor, "r k"]) -> Float[Tensor, "3 i j k"]:
    """Returns the positions that two factors stand for, in one multiplication of matrices."""
    return (columns.reshape(-1, len(rows)) @ rows).view(*columns.shape[:3], rows.shape[1])


def interpolate_linear(
    image: Float[Tensor, "c x y z"], positions: Float[Tensor, "3 i j k"], out: Float[Tensor, "c i j k"]
) -> None:
    """Interpolates an image linearly at voxel positions inside it, into `out`.

    On a CPU torch interpolates planes several times as fast as volumes. The planes below and above a position are
    therefore two channels of one picture, in which all planes lie one below the other, and are mixed afterwards.
    """
    _, planes, height, width = image.shape
    image = image.contiguous()
    plane = positions[0].floor().clamp_(0, planes - 2)
    fraction = positions[0] - plane
    # Fewer planes fit into the cache of a processor; to read their number from another device would wait for it.
    first, last = (int(plane.min()), int(plane.max())) if image.device.type == "cpu" else (0, planes - 2)
    num_rows = (last - first + 1) * height
    row = positions[1].add(plane.sub_(first), alpha=height)
    grid = positions.new_empty(*plane.shape, 2)  # filled in place, which is faster than a stack
    torch.mul(positions[2], 2 / (width - 1), out=grid[..., 0])
    torch.mul(row, 2 / (num_rows - 1), out=grid[..., 1])
    grid = grid.sub_(1).view(1, -1, grid.shape[2], 2)
    for channel, target in zip(image, out, strict=True):
        start = channel.storage_offset() + first * height * width
        shape, strides = (1, 2, num_rows, width), (0, height * width, width, 1)
        below_and_above = channel.as_strided(shape, strides, start)
        below, above = F.grid_sample(below_and_above, grid, padding_mode="border", align_corners=True)[0]
        torch.lerp(below.view_as(fraction), above.view_as(fraction), fraction, out=target)


def take_nearest(label: Int[Tensor, "x y z"], positions: Float[Tensor, "3 i j k"]) -> Int[Tensor, "i j k"]:
    """Returns the values of the voxels that are nearest to positions inside a label volume."""
    _, height, width = label.shape
    last = torch.tensor(label.shape, device=label.device)[:, None, None, None] - 1
    i, j, k = positions.round().long().clamp_(min=0).minimum(last)
    return label.reshape(-1)[(i * height + j) * width + k]


def find_thick_axis(spacing_mm: Spacing) -> int | None:
    """Returns the axis across thick slices; None if no voxel side is three times as long as another."""
    if max(spacing_mm) < THICK_SLICE_RATIO * min(spacing_mm):
        return None
    return spacing_mm.index(max(spacing_mm))


def spread_over_axes(strength: PerAxis, spacing_mm: Spacing) -> Spacing:
    """Returns the strength along each axis; one number spares the axis across thick slices."""
    thick = find_thick_axis(spacing_mm)
    i, j, k = strength if isinstance(strength, tuple) else (0.0 if axis == thick else strength for axis in range(3))
    return i, j, k


def draw_uniform_number(generator: Generator, low: float, high: float) -> float:
    """Draws a number between two bounds."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def draw_rotation_and_scale(
    rotate_deg: PerAxis, scale: PerAxis, spacing_mm: Spacing, generator: Generator
) -> Float[Tensor, "3 3"]:
    """Draws a rotation, rigid in mm, and a scale, as a matrix from voxels to voxels.

    Args:
        rotate_deg: Largest rotation about each axis; one number turns thick slices in plane only.
        scale: Largest change of size along each axis, as a fraction; one number spares the axis across thick slices.
        spacing_mm: Voxel spacing.
        generator: Source of all randomness.
    """
    thick = find_thick_axis(spacing_mm)
    strengths_deg = rotate_deg if isinstance(rotate_deg, tuple) else (rotate_deg, rotate_deg, rotate_deg)
    rotation = torch.eye(3)
    for axis in range(3):
        is_free = isinstance(rotate_deg, tuple) or thick in (None, axis)
        largest = strengths_deg[axis] if is_free else 0.0
        angle = math.radians(draw_uniform_number(generator, -largest, largest))
        a, b = [other for other in range(3) if other != axis]
        about_axis = torch.eye(3)
        about_axis[a, a] = about_axis[b, b] = math.cos(angle)
        about_axis[a, b], about_axis[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ about_axis
    draws = [draw_uniform_number(generator, -1, 1) for _ in range(3)]
    if not isinstance(scale, tuple):
        draws = draws[:1] * 3
    strengths = spread_over_axes(scale, spacing_mm)
    factors = torch.tensor([1 + strength * draw for strength, draw in zip(strengths, draws, strict=True)])
    spacing = torch.tensor(spacing_mm, dtype=torch.float32)
    return rotation * (spacing / factors)[None] / spacing[:, None]


def draw_control_points(strengths: Spacing, size: Triple, spacing_mm: Spacing, generator: Generator) -> ControlPoints:
    """Draws a smooth deformation.

    Control points are equally far from each other in mm along all axes. An axis that is not deformed has one: all
    slices of a stack move alike.

    Args:
        strengths: Largest standard deviation of the displacement along each axis, in distances of control points.
        size: Shape of the crop in voxels.
        spacing_mm: Voxel spacing.
        generator: Source of all randomness.
    """
    sides = [n * mm for n, mm in zip(size, spacing_mm, strict=True)]
    distance_mm = max(sides) / CONTROL_INTERVALS
    counts = [
        math.ceil(side / distance_mm - 1e-6) + 1 if strength > 0 else 1
        for side, strength in zip(sides, strengths, strict=True)
    ]
    amplitude = draw_uniform_number(generator, 0, 1)
    noise = torch.randn(3, *counts, generator=generator) * torch.tensor(strengths)[:, None, None, None] * amplitude
    displacement_mm = noise.clamp(-MAX_DISPLACEMENT, MAX_DISPLACEMENT) * distance_mm
    spacing = torch.tensor(spacing_mm, dtype=torch.float32)[:, None, None, None]
    i, j, k = (mm / distance_mm for mm in spacing_mm)
    return ControlPoints(displacement_mm / spacing, (i, j, k))

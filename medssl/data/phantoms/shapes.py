"""Draws shapes for phantoms: signed distances in mm, and a canvas that paints them with partial-volume edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

Points = Float32[np.ndarray, "3 *n"]
DistanceField = Float32[np.ndarray, "*n"]
Affine = Float[np.ndarray, "4 4"]
Shape = tuple[int, int, int]
Vector = Sequence[float] | Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Waves:
    """A smooth random field as a sum of plane waves, with a mean of about 0 and a standard deviation of about 1.

    Attributes:
        k: Wave vectors in radians per mm.
        phase: Phases in radians.
    """

    k: Float32[np.ndarray, "w 3"]
    phase: Float32[np.ndarray, "w"]

    @classmethod
    def draw(cls, rng: np.random.Generator, num_waves: int, shortest_mm: float, longest_mm: float) -> "Waves":
        """Draws waves in random directions with wavelengths in the given range."""
        direction = rng.normal(size=(num_waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = direction * (2 * np.pi / rng.uniform(shortest_mm, longest_mm, (num_waves, 1)))
        return cls(k.astype(np.float32), rng.uniform(0, 2 * np.pi, num_waves).astype(np.float32))

    def evaluate_each(self, points: Points) -> Float32[np.ndarray, "w *n"]:
        """Evaluates every wave separately at some points."""
        angle = np.tensordot(self.k, points, 1)
        return np.sin(angle + self.phase.reshape(-1, *[1] * (points.ndim - 1)))

    def __call__(self, points: Points) -> DistanceField:
        """Evaluates the field at some points."""
        return self.evaluate_each(points).sum(0) * np.float32(np.sqrt(2 / len(self.k)))


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of space that makes the anatomy of every patient different.

    It is invertible if the amplitudes of the waves times their wave numbers sum to less than 1.
    """

    waves: Waves
    amplitudes_mm: Float32[np.ndarray, "w 3"]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, num_waves: int, amplitude_mm: float, shortest_mm: float, longest_mm: float
    ) -> "Warp":
        """Draws waves that displace in random directions and share the amplitude equally."""
        waves, directions = Waves.draw(rng, num_waves, shortest_mm, longest_mm), rng.normal(size=(num_waves, 3))
        directions *= amplitude_mm / np.sqrt(num_waves) / np.linalg.norm(directions, axis=1, keepdims=True)
        return cls(waves, directions.astype(np.float32))

    @property
    def max_displacement_mm(self) -> float:
        """Upper bound of the displacement along each axis."""
        return float(np.abs(self.amplitudes_mm).sum(0).max())

    def __call__(self, points: Points) -> Points:
        """Displaces points."""
        return points + np.tensordot(self.amplitudes_mm.T, self.waves.evaluate_each(points), 1)

    def invert(self, points: Points) -> Points:
        """Finds the points that are displaced to the given ones, to about 0.01 mm."""
        origin = points
        for _ in range(16):
            origin = origin + (points - self(origin))
        return origin


@dataclass(frozen=True)
class Canvas:
    """An image and its labels, painted in place.

    Attributes:
        image: Voxel values.
        label: Label values.
        affine: Voxel index -> mm of the patient.
        points: Coordinates of every voxel in mm of the undeformed anatomy.
        reach_mm: Upper bound, along each axis, of the displacement between the two.
    """

    image: Float32[np.ndarray, "*c i j k"]
    label: UInt8[np.ndarray, "i j k"]
    affine: Affine
    points: Float32[np.ndarray, "3 i j k"]
    reach_mm: float

    @classmethod
    def create_blank(cls, shape: Shape, affine: Affine, warp: Warp, channels: tuple[int, ...] = ()) -> "Canvas":
        """Creates a canvas of zeros without labels."""
        points = warp(voxel_centres(shape, affine))
        return cls(
            np.zeros((*channels, *shape), np.float32),
            np.zeros(shape, np.uint8),
            affine,
            points,
            warp.max_displacement_mm,
        )

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        i, j, k = self.label.shape
        return i, j, k

    @cached_property
    def voxel_mm(self) -> float:
        """Edge length of a cube with the volume of a voxel."""
        return float(np.cbrt(abs(np.linalg.det(self.affine[:3, :3]))))

    @cached_property
    def _to_index(self) -> Affine:
        return np.linalg.inv(self.affine)

    def view_box(self, low: Vector, high: Vector) -> "Canvas":
        """Returns a view that contains at least all points between two corners in mm; it may be empty."""
        middle, half = np.add(low, high) / 2, np.subtract(high, low) / 2 + self.reach_mm + self.voxel_mm
        index = self._to_index[:3, :3] @ middle + self._to_index[:3, 3]
        reach = np.abs(self._to_index[:3, :3]) @ half
        first = np.clip(np.floor(index - reach), 0, self.label.shape).astype(int)
        last = np.clip(np.ceil(index + reach) + 1, first, self.label.shape).astype(int)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ first
        return Canvas(self.image[..., i, j, k], self.label[i, j, k], affine, self.points[:, i, j, k], self.reach_mm)

    def view_around(self, centre: Vector, reach_mm: Vector | float) -> "Canvas":
        """Returns a view that contains at least all points within `reach_mm` of a centre along each axis."""
        return self.view_box(np.asarray(centre) - reach_mm, np.asarray(centre) + reach_mm)

    def view_ball(self, frame: Affine, centre_mm: Vector, radius_mm: float) -> tuple["Canvas", DistanceField]:
        """Returns a view around a ball that is round in scanner coordinates, and the distance to it.

        Args:
            frame: Patient coordinates -> scanner coordinates.
            centre_mm: Centre in scanner coordinates.
            radius_mm: Radius.
        """
        to_patient = np.linalg.inv(frame)
        part = self.view_around(to_patient[:3, :3] @ np.asarray(centre_mm) + to_patient[:3, 3], 1.3 * radius_mm + 2)
        offset = voxel_centres(part.shape, frame @ part.affine) - _as_column(centre_mm, part.points)
        return part, np.sqrt((offset * offset).sum(0)) - np.float32(radius_mm)

    def paint(self, distance: DistanceField, value: float | Shaped[np.ndarray, "*m"], label: int | None = None) -> None:
        """Fills where `distance` < 0, blending values over one voxel at the edge; labels have hard edges."""
        coverage = np.clip(0.5 - distance / np.float32(self.voxel_mm), 0, 1)
        self.image[...] += coverage * (value - self.image)
        if label is not None:
            self.label[distance < 0] = label


def voxel_centres(shape: Shape, affine: Affine) -> Float32[np.ndarray, "3 i j k"]:
    """Computes the coordinates of every voxel centre of a grid."""
    i, j, k = (np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape))
    a = affine
    return np.stack(
        [np.float32(a[w, 0] * i + a[w, 3]) + np.float32(a[w, 1] * j) + np.float32(a[w, 2] * k) for w in range(3)]
    )


def ellipsoid_distance(
    points: Points, centre: Vector, radii: Vector, axes: Float[np.ndarray, "3 3"] | None = None
) -> DistanceField:
    """Computes the distance to an ellipsoid, exact at the surface; the rows of `axes` are its directions."""
    shifted = points - _as_column(centre, points)
    if axes is not None:
        shifted = np.tensordot(axes.astype(np.float32), shifted, 1)
    scaled = shifted / _as_column(radii, points)
    level = np.sqrt((scaled * scaled).sum(0))
    gradient = scaled / _as_column(radii, points)
    return level * (level - 1) / (np.sqrt((gradient * gradient).sum(0)) + np.float32(1e-6))


def capsule_distance(
    points: Points, start: Vector, end: Vector, radius_mm: float, end_radius_mm: float
) -> DistanceField:
    """Computes the distance to a tube with round ends that tapers from one radius to the other."""
    axis = np.asarray(end, np.float32) - np.asarray(start, np.float32)
    from_start = points - _as_column(start, points)
    along = np.clip(np.tensordot(axis, from_start, 1) / np.float32(axis @ axis + 1e-6), 0, 1)
    offset = from_start - _as_column(axis, points) * along
    return np.sqrt((offset * offset).sum(0)) - (radius_mm + along * np.float32(end_radius_mm - radius_mm))


def rounded_rectangle_distance(
    x: DistanceField, y: DistanceField, a: float | DistanceField, b: float | DistanceField
) -> DistanceField:
    """Computes the distance, along the ray from the origin, to a rounded rectangle with half axes a and b."""
    u, v = (x / a) ** 2, (y / b) ** 2
    level = np.float32(0.55) * np.sqrt(u + v) + np.float32(0.45) * np.sqrt(np.sqrt(u * u + v * v)) + np.float32(1e-6)
    return (1 - 1 / level) * np.hypot(x, y)


def _as_column(vector: Vector, like: Points) -> Float32[np.ndarray, "3 *ones"]:
    return np.asarray(vector, np.float32).reshape(3, *[1] * (like.ndim - 1))

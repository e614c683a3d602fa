"""The drawing kit of the phantoms: signed distances in mm, and a canvas that paints them with soft edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

Points = Float32[np.ndarray, "3 *n"]
Field = Float32[np.ndarray, "*n"]
Affine = Float[np.ndarray, "4 4"]
Shape = tuple[int, int, int]
Vector = Sequence[float] | Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Waves:
    """A smooth random field of the given wavelengths in mm: about zero mean and unit spread."""

    k: Float32[np.ndarray, "w 3"]
    phase: Float32[np.ndarray, "w"]

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, shortest_mm: float, longest_mm: float) -> "Waves":
        """`n` waves in random directions."""
        direction = rng.normal(size=(n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = direction * (2 * np.pi / rng.uniform(shortest_mm, longest_mm, (n, 1)))
        return cls(k.astype(np.float32), rng.uniform(0, 2 * np.pi, n).astype(np.float32))

    def each(self, points: Points) -> Float32[np.ndarray, "w *n"]:
        """Every wave by itself."""
        angle = np.tensordot(self.k, points, 1)
        return np.sin(angle + self.phase.reshape(-1, *[1] * (points.ndim - 1)))

    def __call__(self, points: Points) -> Field:
        """The field at some points."""
        return self.each(points).sum(0) * np.float32(np.sqrt(2 / len(self.k)))


@dataclass(frozen=True)
class Warp:
    """A smooth displacement of space, so that no two patients are the same ellipsoids.

    It can be undone as long as the waves' amplitudes times their wave numbers sum to less than 1.
    """

    waves: Waves
    by_mm: Float32[np.ndarray, "w 3"]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, n: int, amplitude_mm: float, shortest_mm: float, longest_mm: float
    ) -> "Warp":
        """`n` waves, each pushing a random way by a like part of the amplitude."""
        waves, way = Waves.draw(rng, n, shortest_mm, longest_mm), rng.normal(size=(n, 3))
        way *= amplitude_mm / np.sqrt(n) / np.linalg.norm(way, axis=1, keepdims=True)
        return cls(waves, way.astype(np.float32))

    @property
    def reach_mm(self) -> float:
        """No point moves farther than this along any axis."""
        return float(np.abs(self.by_mm).sum(0).max())

    def __call__(self, points: Points) -> Points:
        """Where the points come to lie."""
        return points + np.tensordot(self.by_mm.T, self.waves.each(points), 1)

    def back(self, points: Points) -> Points:
        """Which points come to lie here, to about 0.01 mm."""
        before = points
        for _ in range(16):
            before = before + (points - self(before))
        return before


@dataclass(frozen=True)
class Canvas:
    """An image and its labels, painted in place.

    `affine` takes voxel indices to the body's frame; `points` holds the same places after the body's `warp`.
    """

    image: Float32[np.ndarray, "*c i j k"]
    label: UInt8[np.ndarray, "i j k"]
    affine: Affine
    points: Float32[np.ndarray, "3 i j k"]
    reach_mm: float

    @classmethod
    def blank(cls, shape: Shape, affine: Affine, warp: Warp, channels: tuple[int, ...] = ()) -> "Canvas":
        """A canvas of zeros, without labels."""
        points = warp(lattice(shape, affine))
        return cls(np.zeros((*channels, *shape), np.float32), np.zeros(shape, np.uint8), affine, points, warp.reach_mm)

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        i, j, k = self.label.shape
        return i, j, k

    @cached_property
    def voxel_mm(self) -> float:
        """The edge of a cube as large as a voxel."""
        return float(np.cbrt(abs(np.linalg.det(self.affine[:3, :3]))))

    @cached_property
    def _to_index(self) -> Affine:
        return np.linalg.inv(self.affine)

    def window(self, low: Vector, high: Vector) -> "Canvas":
        """A view that holds at least every warped point between `low` and `high`; it may be empty."""
        middle, half = np.add(low, high) / 2, np.subtract(high, low) / 2 + self.reach_mm + self.voxel_mm
        index = self._to_index[:3, :3] @ middle + self._to_index[:3, 3]
        reach = np.abs(self._to_index[:3, :3]) @ half
        first = np.clip(np.floor(index - reach), 0, self.label.shape).astype(int)
        last = np.clip(np.ceil(index + reach) + 1, first, self.label.shape).astype(int)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        moved = self.affine.copy()
        moved[:3, 3] += self.affine[:3, :3] @ first
        return Canvas(self.image[..., i, j, k], self.label[i, j, k], moved, self.points[:, i, j, k], self.reach_mm)

    def around(self, centre: Vector, reach_mm: Vector | float) -> "Canvas":
        """The window of `reach_mm` to all sides of a point."""
        return self.window(np.asarray(centre) - reach_mm, np.asarray(centre) + reach_mm)

    def ball(self, frame: Affine, centre_mm: Vector, radius_mm: float) -> tuple["Canvas", Field]:
        """The window of a ball that is round in scanner mm, whatever the patient's bends, and the distance to it."""
        back = np.linalg.inv(frame)
        part = self.around(back[:3, :3] @ np.asarray(centre_mm) + back[:3, 3], 1.3 * radius_mm + 2)
        off = lattice(part.shape, frame @ part.affine) - _column(centre_mm, part.points)
        return part, np.sqrt((off * off).sum(0)) - np.float32(radius_mm)

    def paint(self, distance: Field, value: float | Shaped[np.ndarray, "*m"], label: int | None = None) -> None:
        """Fills where `distance` < 0, mixing at the edge over one voxel as a scanner does; labels have hard edges."""
        share = np.clip(0.5 - distance / np.float32(self.voxel_mm), 0, 1)
        self.image[...] += share * (value - self.image)
        if label is not None:
            self.label[distance < 0] = label


def lattice(shape: Shape, affine: Affine) -> Float32[np.ndarray, "3 i j k"]:
    """The place of every voxel centre."""
    i, j, k = (np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape))
    a = affine
    return np.stack(
        [np.float32(a[w, 0] * i + a[w, 3]) + np.float32(a[w, 1] * j) + np.float32(a[w, 2] * k) for w in range(3)]
    )


def ellipsoid(points: Points, centre: Vector, radii: Vector, turn: Float[np.ndarray, "3 3"] | None = None) -> Field:
    """The distance to an ellipsoid, right at the surface; the rows of `turn` are its axes."""
    shifted = points - _column(centre, points)
    if turn is not None:
        shifted = np.tensordot(turn.astype(np.float32), shifted, 1)
    scaled = shifted / _column(radii, points)
    level = np.sqrt((scaled * scaled).sum(0))
    steep = scaled / _column(radii, points)
    return level * (level - 1) / (np.sqrt((steep * steep).sum(0)) + np.float32(1e-6))


def capsule(points: Points, start: Vector, end: Vector, radius_mm: float, end_radius_mm: float) -> Field:
    """The distance to a tube with round ends that tapers from one radius to the other."""
    axis = np.asarray(end, np.float32) - np.asarray(start, np.float32)
    away = points - _column(start, points)
    along = np.clip(np.tensordot(axis, away, 1) / np.float32(axis @ axis + 1e-6), 0, 1)
    off = away - _column(axis, points) * along
    return np.sqrt((off * off).sum(0)) - (radius_mm + along * np.float32(end_radius_mm - radius_mm))


def ring(x: Field, y: Field, a: float | Field, b: float | Field) -> Field:
    """The distance, along the ray from the origin, to a rounded rectangle of half axes a and b."""
    u, v = (x / a) ** 2, (y / b) ** 2
    level = np.float32(0.55) * np.sqrt(u + v) + np.float32(0.45) * np.sqrt(np.sqrt(u * u + v * v)) + np.float32(1e-6)
    return (1 - 1 / level) * np.hypot(x, y)


def _column(vector: Vector, like: Points) -> Float32[np.ndarray, "3 *ones"]:
    return np.asarray(vector, np.float32).reshape(3, *[1] * (like.ndim - 1))

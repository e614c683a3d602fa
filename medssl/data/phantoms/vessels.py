"""Grows trees of tubes: the vessels and airways of the phantom chest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.data.phantoms.shapes import Vector

TAPER = 0.94
Direction = Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Tube:
    """A straight segment of a vessel that tapers from `radius` to `end_radius`, in mm."""

    start: Direction
    end: Direction
    radius: float
    end_radius: float


AORTIC_ARCH = [(4, 8, -14), (11, 12, 38), (6, 2, 55), (-8, -14, 59), (-18, -36, 46), (-20, -44, 0), (-12, -42, -90)]
GREAT_VESSELS = (
    ([*AORTIC_ARCH, (-6, -40, -220)], 13, 9),  # the aorta
    ([(-6, -26, 56), (-20, -6, 125)], 5, 4),  # left common carotid
    ([(8, 2, 56), (22, -2, 125)], 6, 4),  # brachiocephalic trunk
    ([(23, 4, -20), (21, 8, 30), (20, 10, 62), (26, 16, 90)], 8, 6),  # superior vena cava
    ([(17, -12, -50), (17, -24, -110), (14, -26, -220)], 10, 9),  # inferior vena cava
    ([(-14, 24, -8), (-11, 10, 20), (24, -6, 8)], 11, 8),  # pulmonary trunk and right pulmonary artery
    ([(-11, 10, 20), (-30, -10, 12)], 10, 8),  # left pulmonary artery
)
OESOPHAGUS = [(-4, -34, 125), (-3, -36, 20), (-9, -30, -85)]


def draw_lung_vessels(rng: np.random.Generator) -> list[Tube]:
    """Draws six trees from the two hila to the top, the side and the base of each lung."""
    tubes = []
    for side in (-1, 1):
        for towards in ((0.55, 0.1, 0.9), (0.9, 0.5, 0.0), (0.6, -0.35, -0.8)):
            root = np.array([24.0 * side, -8, 6]) + rng.normal(0, 3, 3)
            direction = np.asarray(towards) * (side, 1, 1) + rng.normal(0, 0.12, 3)
            tubes += grow_tree(rng, root, direction, rng.uniform(4.5, 6), rng.uniform(22, 29), 6)
    return tubes


def draw_airways(rng: np.random.Generator) -> list[Tube]:
    """Draws the trachea and its first branches."""
    carina = np.array([1.0, -24, 26]) + rng.normal(0, 2, 3)
    tubes = connect_points([(1, -18, 140), (1, -21, 70), carina], 8, 7.5)
    for side, steep in ((1, -0.75), (-1, -0.5)):
        tubes += grow_tree(rng, carina, (side, -0.05, steep), 5.5, 34, 2)
    return tubes


def grow_tree(
    rng: np.random.Generator, root: Vector, towards: Vector, radius: float, length: float, depth: int
) -> list[Tube]:
    """Grows a tree that forks `depth` times and keeps the sum of cubed radii at each fork (Murray's law)."""
    start, direction = np.asarray(root, float), _normalize(np.asarray(towards, float))
    end = start + direction * length
    fraction = rng.uniform(0.35, 0.65)
    trunk = Tube(start, end, radius, radius * TAPER)
    if depth == 0:
        return [trunk]
    side = _normalize(np.cross(direction, rng.normal(size=3)))
    tubes = [trunk]
    for part, sign in ((fraction, 1), (1 - fraction, -1)):
        lean = sign * np.tan(np.deg2rad(rng.uniform(22, 48))) * (1 - part) * 1.6
        branch_length = length * rng.uniform(0.7, 0.95)
        tubes += grow_tree(
            rng, end, direction + lean * side, radius * TAPER * float(np.cbrt(part)), branch_length, depth - 1
        )
    return tubes


def connect_points(points: Sequence[Vector], radius: float, end_radius: float) -> list[Tube]:
    """Connects points with a chain of tubes of evenly changing radius."""
    radii = np.linspace(radius, end_radius, len(points))
    stops = [np.asarray(p, float) for p in points]
    return [Tube(stops[n], stops[n + 1], float(radii[n]), float(radii[n + 1])) for n in range(len(stops) - 1)]


def _normalize(vector: Direction) -> Direction:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)

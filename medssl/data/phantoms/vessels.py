"""Branching trees of tubes: the vessels and airways of the phantom chest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.data.phantoms.shapes import Vector

TAPER = 0.94
Direction = Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Tube:
    """A straight piece of a vessel that tapers from `radius` to `end_radius`, in mm."""

    start: Direction
    end: Direction
    radius: float
    end_radius: float


ARCH = [(4, 8, -14), (11, 12, 38), (6, 2, 55), (-8, -14, 59), (-18, -36, 46), (-20, -44, 0), (-12, -42, -90)]
GREAT_VESSELS = (
    ([*ARCH, (-6, -40, -220)], 13, 9),  # the aorta
    ([(-6, -26, 56), (-20, -6, 125)], 5, 4),  # left common carotid
    ([(8, 2, 56), (22, -2, 125)], 6, 4),  # brachiocephalic trunk
    ([(23, 4, -20), (21, 8, 30), (20, 10, 62), (26, 16, 90)], 8, 6),  # superior vena cava
    ([(17, -12, -50), (17, -24, -110), (14, -26, -220)], 10, 9),  # inferior vena cava
    ([(-14, 24, -8), (-11, 10, 20), (24, -6, 8)], 11, 8),  # pulmonary trunk and right pulmonary artery
    ([(-11, 10, 20), (-30, -10, 12)], 10, 8),  # left pulmonary artery
)
GULLET = [(-4, -34, 125), (-3, -36, 20), (-9, -30, -85)]


def lung_vessels(rng: np.random.Generator) -> list[Tube]:
    """Six trees from the two hila: to the top, the side and the foot of each lung."""
    tubes = []
    for side in (-1, 1):
        for towards in ((0.55, 0.1, 0.9), (0.9, 0.5, 0.0), (0.6, -0.35, -0.8)):
            root = np.array([24.0 * side, -8, 6]) + rng.normal(0, 3, 3)
            aim = np.asarray(towards) * (side, 1, 1) + rng.normal(0, 0.12, 3)
            tubes += tree(rng, root, aim, rng.uniform(4.5, 6), rng.uniform(22, 29), 6)
    return tubes


def airways(rng: np.random.Generator) -> list[Tube]:
    """The windpipe and its first branches."""
    carina = np.array([1.0, -24, 26]) + rng.normal(0, 2, 3)
    tubes = course([(1, -18, 140), (1, -21, 70), carina], 8, 7.5)
    for side, steep in ((1, -0.75), (-1, -0.5)):
        tubes += tree(rng, carina, (side, -0.05, steep), 5.5, 34, 2)
    return tubes


def tree(
    rng: np.random.Generator, root: Vector, towards: Vector, radius: float, length: float, depth: int
) -> list[Tube]:
    """A tree that forks `depth` times; a fork keeps the summed cube of the radii (Murray's law)."""
    start, direction = np.asarray(root, float), _unit(np.asarray(towards, float))
    end = start + direction * length
    share = rng.uniform(0.35, 0.65)
    trunk = Tube(start, end, radius, radius * TAPER)
    if depth == 0:
        return [trunk]
    side = _unit(np.cross(direction, rng.normal(size=3)))
    tubes = [trunk]
    for part, sign in ((share, 1), (1 - share, -1)):
        lean = sign * np.tan(np.deg2rad(rng.uniform(22, 48))) * (1 - part) * 1.6
        shorter = length * rng.uniform(0.7, 0.95)
        tubes += tree(rng, end, direction + lean * side, radius * TAPER * float(np.cbrt(part)), shorter, depth - 1)
    return tubes


def course(points: Sequence[Vector], radius: float, end_radius: float) -> list[Tube]:
    """One tube after the other through the points."""
    radii = np.linspace(radius, end_radius, len(points))
    stops = [np.asarray(p, float) for p in points]
    return [Tube(stops[n], stops[n + 1], float(radii[n]), float(radii[n + 1])) for n in range(len(stops) - 1)]


def _unit(vector: Direction) -> Direction:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)

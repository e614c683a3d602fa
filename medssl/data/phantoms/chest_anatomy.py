"""The anatomy of a phantom chest: one invented patient, whom any scanner grid may cut.

Laid out in mm of a standard small adult, x to the right, y to the front, z to the head; `frame` places, turns and
scales the patient in the scanner, and `warp` bends them so that no organ stays an ellipsoid.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial.transform import Rotation

from medssl.data.phantoms.shapes import Affine, Field, Points, Warp, Waves, ellipsoid, ring
from medssl.data.phantoms.vessels import Tube, airways, lung_vessels

MOST_NODULES = 30
HEART_TURN = np.array([[-0.72, 0.52, -0.46], [0.58, 0.81, 0.0], [0.37, -0.27, -0.89]])


@dataclass(frozen=True)
class Nodule:
    """A ball in the lung of one `hu`, or of a haze of that `hu` round a solid core of `core_mm`."""

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    core_mm: float = 0.0


@dataclass(frozen=True)
class Chest:
    """One patient: everything that is theirs and not the scanner's."""

    frame: Affine
    warp: Warp
    texture: Waves
    fat_mm: float
    contrast_hu: float
    noise_hu: float
    lung_hu: float
    liver_hu: float
    dome_mm: Float32[np.ndarray, "2"]
    heart_mm: Float32[np.ndarray, "2 3"]
    liver_mm: Float32[np.ndarray, "2 3"]
    rib_mm: Float32[np.ndarray, "2"]
    vessels: tuple[Tube, ...]
    airways: tuple[Tube, ...]
    nodules: tuple[Nodule, ...] = ()


def draw_patient(rng: np.random.Generator, nodules: int | None) -> Chest:
    """An invented patient; `nodules=None` draws 0 to 4 of them."""
    patient = Chest(
        frame=_frame(rng),
        warp=Warp.draw(rng, 5, 6.0, 110, 240),
        texture=Waves.draw(rng, 7, 14, 40),
        fat_mm=rng.uniform(5, 17),
        contrast_hu=float(rng.choice([0.0, rng.uniform(80, 220)])),
        noise_hu=float(np.exp(rng.uniform(np.log(7), np.log(30)))),
        lung_hu=rng.uniform(-880, -800),
        liver_hu=rng.uniform(38, 66),
        dome_mm=rng.uniform((-52, -62), (-36, -46)).astype(np.float32),
        heart_mm=rng.normal([[-19, 18, -34], [52, 37, 37]], 3).astype(np.float32),
        liver_mm=rng.normal([[56, 4, -98], [62, 70, 58]], 4).astype(np.float32),
        rib_mm=rng.uniform((21, 0), (26, 24)).astype(np.float32),
        vessels=tuple(lung_vessels(rng)),
        airways=tuple(airways(rng)),
    )
    count = int(rng.integers(0, 5)) if nodules is None else nodules
    if count > MOST_NODULES:
        raise ValueError(f"{count} nodules have no room in the lungs; ask for at most {MOST_NODULES}")
    return replace(patient, nodules=tuple(_nodules(rng, patient, count)))


def cavity(p: Points) -> Field:
    """The distance to the inside of the rib cage, which closes above the lungs and runs on into the abdomen."""
    up = np.clip((p[2] - 5) / 100, 0, 0.999)
    narrow = np.sqrt(1 - up * up)
    return ring(p[0], p[1] - 2, 104 * narrow, 68 * narrow)


def dome(p: Points, patient: Chest) -> Field:
    """The height of the diaphragm: two domes, the right one higher, falling off steeply to the back."""
    right, left = patient.dome_mm
    over_right = right - 42 * (((p[0] - 50) / 60) ** 2 + ((p[1] - 12) / 66) ** 2)
    over_left = left - 42 * (((p[0] + 52) / 58) ** 2 + ((p[1] - 12) / 66) ** 2)
    return np.maximum(np.maximum(over_right, over_left), -118)


def lungs(p: Points, patient: Chest) -> Field:
    """The distance to both lungs: the cavity above the diaphragm, less mediastinum, heart and spine."""
    middle = 9 + 15 * np.exp(-(((p[1] + 8) / 30) ** 2)) + 5 * np.clip((p[2] - 40) / 50, 0, 1)
    inside = np.maximum(cavity(p) + 4, (dome(p, patient) - p[2]) * np.float32(0.8))
    inside = np.maximum(inside, middle - np.abs(p[0] + 2))
    inside = np.maximum(inside, 3 - heart(p, patient))
    return np.maximum(inside, 23 - np.hypot(p[0], p[1] + 64 - bend(p)))


def heart(p: Points, patient: Chest) -> Field:
    """The distance to the heart, whose long axis points to the left, the front and the feet."""
    return ellipsoid(p, patient.heart_mm[0], patient.heart_mm[1], HEART_TURN)


def bend(p: Points) -> Field:
    """How far the spine lies in front of its lowest point: the curve of the chest to the back."""
    return (p[2] / 130) ** 2 * 9 - 4


def _frame(rng: np.random.Generator) -> Affine:
    """Patient coordinates -> scanner coordinates."""
    frame = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.normal(0, (3, 2.5, 4)), degrees=True).as_matrix()
    frame[:3, :3] = turn * rng.uniform((0.9, 0.88, 0.9), (1.04, 1.06, 1.04))
    frame[:3, 3] = rng.uniform(-8, 8, 3)
    return frame


def _nodules(rng: np.random.Generator, patient: Chest, count: int) -> list[Nodule]:
    """Balls that lie inside the lungs and apart from each other."""
    found: list[Nodule] = []
    places = rng.uniform((-100, -75, -80), (100, 75, 95), (4000, 3)).astype(np.float32).T
    room = -lungs(patient.warp(places), patient)
    centres = (patient.frame[:3, :3] @ places + patient.frame[:3, 3:]).T
    for _ in range(count):
        diameter = float(np.exp(rng.uniform(np.log(6), np.log(24))))
        while not (free := np.flatnonzero((room > diameter * 0.6 + 2) & _apart(centres, found, diameter))).size:
            diameter *= 0.8
        x, y, z = (float(v) for v in centres[rng.choice(free)])
        part_solid = diameter > 10 and rng.random() < 0.3
        hu = rng.uniform(-600, -420) if part_solid else rng.uniform(0, 70)
        found.append(Nodule((x, y, z), diameter, float(hu), diameter * 0.45 if part_solid else 0.0))
    return found


def _apart(centres: Float[np.ndarray, "n 3"], found: list[Nodule], diameter_mm: float) -> Bool[np.ndarray, "n"]:
    apart = np.ones(len(centres), bool)
    for other in found:
        apart &= np.linalg.norm(centres - other.centre_mm, axis=1) > (diameter_mm + other.diameter_mm) / 2 + 6
    return apart

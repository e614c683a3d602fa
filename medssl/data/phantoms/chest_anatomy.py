"""Defines the anatomy of a phantom chest, which can be rendered on any scanner grid.

Coordinates are mm of a standard small adult: x to the right, y to the front, z to the head. `ChestPhantom.frame`
places, rotates and scales the patient in the scanner, and `ChestPhantom.warp` deforms the patient so that no organ
stays an ellipsoid. Distances are signed, in mm, and negative inside.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial.transform import Rotation

from medssl.data.phantoms.shapes import (
    Affine,
    DistanceField,
    Points,
    Warp,
    Waves,
    ellipsoid_distance,
    rounded_rectangle_distance,
)
from medssl.data.phantoms.vessels import Tube, draw_airways, draw_lung_vessels

MAX_NODULES = 30
NODULE_MM = (6.0, 24.0)
HEART_AXES = np.array([[-0.72, 0.52, -0.46], [0.58, 0.81, 0.0], [0.37, -0.27, -0.89]])


@dataclass(frozen=True)
class Nodule:
    """A solid ball in the lung, or a ground-glass ball around a solid core if `core_mm`, its diameter, is not 0."""

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    core_mm: float = 0.0


@dataclass(frozen=True)
class ChestPhantom:
    """One patient, independently of the grid of the scanner.

    Attributes:
        frame: Patient coordinates -> scanner coordinates.
        warp: Scanner-independent deformation of the anatomy.
        texture: Random field that modulates tissue values.
        fat_mm: Thickness of the subcutaneous fat.
        contrast_hu: Enhancement of blood; 0 without contrast agent.
        noise_hu: Standard deviation of the noise.
        lung_hu: Mean value of the lungs.
        liver_hu: Mean value of the liver without contrast agent.
        dome_mm: Height of the right and of the left dome of the diaphragm.
        heart_mm: Centre and radii of the heart.
        liver_mm: Centre and radii of the liver.
        rib_mm: Distance between ribs, and offset of the first one.
        vessels: Vessels of the lungs.
        airways: Trachea and bronchi.
        nodules: Lung nodules, in scanner coordinates.
    """

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


def draw_patient(
    rng: np.random.Generator, num_nodules: int | None, nodule_mm: tuple[float, float] = NODULE_MM
) -> ChestPhantom:
    """Draws a random patient with the given number of nodules, or with 0 to 4 if it is None.

    `nodule_mm` is the range of their diameters; a nodule that has no room in the lung is drawn smaller.
    """
    patient = ChestPhantom(
        frame=_draw_frame(rng),
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
        vessels=tuple(draw_lung_vessels(rng)),
        airways=tuple(draw_airways(rng)),
    )
    count = int(rng.integers(0, 5)) if num_nodules is None else num_nodules
    if count > MAX_NODULES:
        raise ValueError(f"{count} nodules do not fit into the lungs; choose at most {MAX_NODULES}")
    return replace(patient, nodules=tuple(_draw_nodules(rng, patient, count, nodule_mm)))


def rib_cage_distance(p: Points) -> DistanceField:
    """Computes the distance to the inside of the rib cage, closed above the lungs and open towards the abdomen."""
    height = np.clip((p[2] - 5) / 100, 0, 0.999)
    narrowing = np.sqrt(1 - height * height)
    return rounded_rectangle_distance(p[0], p[1] - 2, 104 * narrowing, 68 * narrowing)


def diaphragm_height(p: Points, patient: ChestPhantom) -> DistanceField:
    """Computes the z of the diaphragm: two domes, the right one higher, that fall off steeply to the back."""
    right_mm, left_mm = patient.dome_mm
    right_dome = right_mm - 42 * (((p[0] - 50) / 60) ** 2 + ((p[1] - 12) / 66) ** 2)
    left_dome = left_mm - 42 * (((p[0] + 52) / 58) ** 2 + ((p[1] - 12) / 66) ** 2)
    return np.maximum(np.maximum(right_dome, left_dome), -118)


def lung_distance(p: Points, patient: ChestPhantom) -> DistanceField:
    """Computes the distance to the lungs: the rib cage above the diaphragm without mediastinum, heart and spine."""
    mediastinum = 9 + 15 * np.exp(-(((p[1] + 8) / 30) ** 2)) + 5 * np.clip((p[2] - 40) / 50, 0, 1)
    inside = np.maximum(rib_cage_distance(p) + 4, (diaphragm_height(p, patient) - p[2]) * np.float32(0.8))
    inside = np.maximum(inside, mediastinum - np.abs(p[0] + 2))
    inside = np.maximum(inside, 3 - heart_distance(p, patient))
    return np.maximum(inside, 23 - np.hypot(p[0], p[1] + 64 - spine_curve(p)))


def heart_distance(p: Points, patient: ChestPhantom) -> DistanceField:
    """Computes the distance to the heart, whose long axis points to the left, the front and the feet."""
    return ellipsoid_distance(p, patient.heart_mm[0], patient.heart_mm[1], HEART_AXES)


def spine_curve(p: Points) -> DistanceField:
    """Computes the y of the curved spine relative to a straight one."""
    return (p[2] / 130) ** 2 * 9 - 4


def _draw_frame(rng: np.random.Generator) -> Affine:
    """Draws the affine from patient to scanner coordinates."""
    frame = np.eye(4)
    rotation = Rotation.from_euler("xyz", rng.normal(0, (3, 2.5, 4)), degrees=True).as_matrix()
    frame[:3, :3] = rotation * rng.uniform((0.9, 0.88, 0.9), (1.04, 1.06, 1.04))
    frame[:3, 3] = rng.uniform(-8, 8, 3)
    return frame


def _draw_nodules(
    rng: np.random.Generator, patient: ChestPhantom, count: int, nodule_mm: tuple[float, float]
) -> list[Nodule]:
    """Draws nodules inside the lungs that do not touch each other."""
    nodules: list[Nodule] = []
    points = rng.uniform((-100, -75, -80), (100, 75, 95), (4000, 3)).astype(np.float32).T
    room = -lung_distance(patient.warp(points), patient)
    centres = (patient.frame[:3, :3] @ points + patient.frame[:3, 3:]).T
    for _ in range(count):
        diameter = float(np.exp(rng.uniform(*np.log(nodule_mm))))
        while not (free := np.flatnonzero((room > diameter * 0.6 + 2) & _is_clear_of(centres, nodules, diameter))).size:
            diameter *= 0.8
        x, y, z = (float(v) for v in centres[rng.choice(free)])
        part_solid = diameter > 10 and rng.random() < 0.3
        hu = rng.uniform(-600, -420) if part_solid else rng.uniform(0, 70)
        nodules.append(Nodule((x, y, z), diameter, float(hu), diameter * 0.45 if part_solid else 0.0))
    return nodules


def _is_clear_of(centres: Float[np.ndarray, "n 3"], nodules: list[Nodule], diameter_mm: float) -> Bool[np.ndarray, "n"]:
    """Tests which centres leave a gap between a new nodule of this diameter and all existing ones."""
    is_clear = np.ones(len(centres), bool)
    for other in nodules:
        is_clear &= np.linalg.norm(centres - other.centre_mm, axis=1) > (diameter_mm + other.diameter_mm) / 2 + 6
    return is_clear

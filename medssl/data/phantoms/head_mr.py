"""Simulates a phantom head in two registered MR sequences, T1-like and T2-like.

Coordinates are mm: x to the right, y to the front, z to the head. Cortex lines random sheets, the sulci, which are
folded into the brain. The left hippocampus is smaller than the right one and lies differently. Distances are signed,
in mm, and negative inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.transform import Rotation

from medssl.data.phantoms.shapes import (
    Affine,
    Canvas,
    DistanceField,
    Points,
    Shape,
    Warp,
    Waves,
    capsule_distance,
    ellipsoid_distance,
)
from medssl.data.phantoms.vessels import Tube, connect_points

GREY, WHITE, VENTRICLES, LEFT, RIGHT, LESION = 1, 2, 3, 4, 5, 6
CORTEX_MM, SULCUS_MM, FOLD_MM = 3.0, 15.0, 34.0


def _signal(t1: float, t2: float) -> Float32[np.ndarray, "2 1 1 1"]:
    """Shapes a tissue's values in T1 and T2 to broadcast over voxels."""
    return np.array([t1, t2], np.float32).reshape(2, 1, 1, 1)


# Values of each tissue in T1 and T2, in arbitrary units.
AIR, BONE, MARROW, FLUID = _signal(8, 8), _signal(40, 30), _signal(400, 300), _signal(110, 900)
SKIN, FAT, MUSCLE = _signal(260, 240), _signal(680, 480), _signal(250, 150)
GREY_MR, WHITE_MR, NUCLEUS_MR = _signal(330, 470), _signal(480, 310), _signal(390, 400)
HIPPOCAMPUS_MR, LESION_MR = _signal(345, 510), _signal(260, 720)


@dataclass(frozen=True)
class HeadPhantom:
    """One patient, and the artefacts of one scanner.

    Attributes:
        frame: Patient coordinates -> scanner coordinates.
        warp: Scanner-independent deformation of the anatomy.
        folds: Random field; its zeros are the sulci.
        scalp_mm: Thickness of the scalp.
        ventricle_scale: Factor on the width of the ventricles.
        hippocampi: Left and right hippocampus.
        lesions: Centre (x, y, z) and radius of each lesion in scanner mm.
        bias: Inhomogeneity of the coils in T1 and T2.
        gain: Scale of the values in T1 and T2.
        noise: Standard deviation of the noise before the gain.
    """

    frame: Affine
    warp: Warp
    folds: Waves
    scalp_mm: float
    ventricle_scale: float
    hippocampi: tuple[tuple[Tube, ...], tuple[Tube, ...]]
    lesions: Float[np.ndarray, "n 4"]
    bias: tuple[Waves, Waves]
    gain: Float[np.ndarray, "2"]
    noise: float


def draw_patient(rng: np.random.Generator, num_lesions: int | None) -> HeadPhantom:
    """Draws a random patient with the given number of lesions; if it is None, half of all patients have 1 to 3."""
    frame = np.eye(4)
    rotation = Rotation.from_euler("xyz", rng.normal(0, (6, 4, 5)), degrees=True).as_matrix()
    frame[:3, :3] = rotation * rng.uniform(0.92, 1.06, 3)
    frame[:3, 3] = rng.uniform(-6, 6, 3)
    count = int(rng.integers(1, 4) * rng.integers(0, 2)) if num_lesions is None else num_lesions
    radius = rng.uniform(5.8, 7.2)
    return HeadPhantom(
        frame=frame,
        warp=Warp.draw(rng, 5, 3.5, 80, 180),
        folds=Waves.draw(rng, 14, 0.9 * FOLD_MM, 1.2 * FOLD_MM),
        scalp_mm=rng.uniform(4, 8),
        ventricle_scale=rng.uniform(0.7, 1.5),
        hippocampi=(_draw_hippocampus(rng, -1, 0.78 * radius), _draw_hippocampus(rng, 1, radius)),
        lesions=_draw_lesions(rng, frame, count),
        bias=(Waves.draw(rng, 3, 220, 420), Waves.draw(rng, 3, 220, 420)),
        gain=rng.uniform(0.6, 1.8, 2),
        noise=rng.uniform(8, 26),
    )


def paint(patient: HeadPhantom, shape: Shape, affine: Affine) -> Canvas:
    """Renders a patient, with labels, as two channels without bias and noise."""
    canvas = Canvas.create_blank(shape, np.linalg.inv(patient.frame) @ affine, patient.warp, (2,))
    canvas.image[...] = AIR
    brain = _brain_distance(canvas.points)
    _paint_scalp(canvas, patient, brain)
    _paint_brain(canvas, patient, brain)
    _paint_deep_structures(canvas.view_box((-55, -70, -60), (55, 60, 60)), patient)
    for x, y, z, radius in patient.lesions:
        part, distance = canvas.view_ball(patient.frame, (x, y, z), float(radius))
        part.paint(distance, LESION_MR, LESION)
    return canvas


def acquire(patient: HeadPhantom, canvas: Canvas, rng: np.random.Generator) -> Float32[np.ndarray, "2 i j k"]:
    """Adds the bias of the coils, Rician noise and the gain of the scanner to a rendered patient."""
    bias = np.stack([np.exp(np.float32(0.13) * wave(canvas.points)) for wave in patient.bias])
    real, imaginary = rng.standard_normal((2, *canvas.image.shape), np.float32) * np.float32(patient.noise)
    magnitude = np.hypot(canvas.image * bias + real, imaginary)
    return magnitude * patient.gain.astype(np.float32).reshape(2, 1, 1, 1)


def _brain_distance(p: Points) -> DistanceField:
    """Computes the distance to the union of cerebrum, temporal lobes and cerebellum."""
    cerebrum = np.maximum(ellipsoid_distance(p, (0, 0, 10), (66, 84, 62)), -32 - p[2])
    mirrored = np.stack([np.abs(p[0]), p[1], p[2]])
    temporal = ellipsoid_distance(mirrored, (40, 6, -24), (24, 40, 22))
    return np.minimum(np.minimum(cerebrum, temporal), ellipsoid_distance(p, (0, -50, -36), (50, 34, 28)))


def _paint_scalp(canvas: Canvas, patient: HeadPhantom, brain: DistanceField) -> None:
    p = canvas.points
    skull = np.minimum(brain, ellipsoid_distance(p, (0, -2, 2), (66, 84, 58)))
    neck = capsule_distance(p, (0, -22, -40), (0, -30, -240), 54, 58)
    face = ellipsoid_distance(p, (0, 46, -52), (52, 46, 66))
    surface = np.minimum(np.minimum(skull - 10 - patient.scalp_mm, neck), face)
    grain = patient.folds(p)
    canvas.paint(surface, SKIN)
    canvas.paint(surface + 2, FAT)
    canvas.paint(np.maximum(surface + 5, 3 - 6 * np.abs(grain)), MUSCLE)
    canvas.paint(np.maximum(skull - 10, -62 - p[2]), BONE)
    canvas.paint(np.maximum(np.abs(skull - 6.5) - 1.8, -50 - p[2]), MARROW)
    for centre, radii in (((0, 62, -34), (14, 18, 16)), ((0, 40, -62), (10, 30, 14)), ((0, 16, -90), (11, 9, 40))):
        canvas.paint(ellipsoid_distance(p, centre, radii), AIR)
    for side in (-1, 1):
        canvas.paint(ellipsoid_distance(p, (32 * side, 72, -26), (13, 13, 13)), FLUID)
    canvas.paint(brain - 3, FLUID)
    stem = capsule_distance(p, (0, -16, -12), (0, -32, -220), 13, 8)
    canvas.paint(np.maximum(stem - 3, p[2] + 20), FLUID)
    canvas.paint(stem, 0.5 * (WHITE_MR + GREY_MR))


def _paint_brain(canvas: Canvas, patient: HeadPhantom, brain: DistanceField) -> None:
    """Paints cortex of even thickness under the surface, along the fissure between the hemispheres and in the sulci."""
    p = canvas.points
    depth = np.minimum(-brain, np.maximum(np.abs(p[0]) - 1.2, 26 - np.hypot(p[1], p[2] - 4)))
    sheet = np.abs(patient.folds(p)) * (FOLD_MM / (2 * np.pi)) - 0.9
    cortex_depth = np.minimum(depth, np.maximum(sheet, (depth - SULCUS_MM) * np.float32(0.5)))
    canvas.paint(-cortex_depth, GREY_MR, GREY)
    canvas.paint(np.maximum(CORTEX_MM - cortex_depth, CORTEX_MM - depth), WHITE_MR, WHITE)


def _paint_deep_structures(canvas: Canvas, patient: HeadPhantom) -> None:
    p = canvas.points
    mirrored = np.stack([np.abs(p[0]), p[1], p[2]])
    for centre, radii in (((12, -8, 8), (8, 14, 9)), ((14, 20, 15), (5, 12, 9)), ((26, 6, 5), (6, 17, 11))):
        canvas.paint(ellipsoid_distance(mirrored, centre, radii), NUCLEUS_MR, GREY)
    width = patient.ventricle_scale
    horns = connect_points([(7, 32, 14), (9, 4, 27), (20, -34, 17), (28, -20, 0)], 4.5 * width, 3 * width)
    ventricles = np.minimum(
        _distance_to_tubes(mirrored, horns), ellipsoid_distance(p, (0, -4, 6), (2.2 * width, 15, 11))
    )
    ventricles = np.minimum(ventricles, ellipsoid_distance(p, (0, -37, -30), (6, 6, 10)))
    canvas.paint(ventricles, FLUID, VENTRICLES)
    for tubes, label in zip(patient.hippocampi, (LEFT, RIGHT), strict=True):
        canvas.paint(_distance_to_tubes(p, tubes), HIPPOCAMPUS_MR, label)


def _distance_to_tubes(p: Points, tubes: Sequence[Tube]) -> DistanceField:
    """Computes the distance to the nearest tube."""
    return np.minimum.reduce([capsule_distance(p, t.start, t.end, t.radius, t.end_radius) for t in tubes])


def _draw_hippocampus(rng: np.random.Generator, side: int, radius: float) -> tuple[Tube, ...]:
    """Draws a hippocampus with a thick head and a tail that curves up and inwards; `side` is -1 on the left."""
    points = np.array([(24, 2, -20), (28, -10, -17), (29, -20, -10), (23, -31, 1)], float) + rng.normal(0, 1.2, (4, 3))
    return tuple(connect_points(list(points * (side, 1, 1) + (0, 2 * side, 0)), radius, 0.5 * radius))


def _draw_lesions(rng: np.random.Generator, frame: Affine, count: int) -> Float[np.ndarray, "n 4"]:
    """Draws lesions next to the ventricles that touch neither each other nor another labelled structure."""
    lesions = np.zeros((0, 4))
    while len(lesions) < count:
        centre = rng.uniform((28, -40, 16), (40, 36, 42)) * (rng.choice([-1, 1]), 1, 1)
        ball = np.array([*(frame[:3, :3] @ centre + frame[:3, 3]), rng.uniform(3, 7)])
        if (np.linalg.norm(lesions[:, :3] - ball[:3], axis=1) > lesions[:, 3] + ball[3] + 3).all():
            lesions = np.vstack([lesions, ball])
    return lesions

"""An MR-like head in two registered sequences: one invented patient, and how T1 and T2 show them.

Laid out in mm, x to the right, y to the front, z to the head. Cortex lines random sheets, the sulci, which are folded
into the brain; the left hippocampus is smaller than the right one and lies differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.transform import Rotation

from medssl.data.phantoms.shapes import Affine, Canvas, Field, Points, Shape, Warp, Waves, capsule, ellipsoid
from medssl.data.phantoms.vessels import Tube, course

GREY, WHITE, VENTRICLES, LEFT, RIGHT, LESION = 1, 2, 3, 4, 5, 6
CORTEX_MM, SULCUS_MM, FOLD_MM = 3.0, 15.0, 34.0


def _shown(t1: float, t2: float) -> Float32[np.ndarray, "2 1 1 1"]:
    return np.array([t1, t2], np.float32).reshape(2, 1, 1, 1)


# What T1 and T2 show of a tissue, in arbitrary units.
AIR, BONE, MARROW, FLUID = _shown(8, 8), _shown(40, 30), _shown(400, 300), _shown(110, 900)
SKIN, FAT, MUSCLE = _shown(260, 240), _shown(680, 480), _shown(250, 150)
GREY_MR, WHITE_MR, NUCLEUS_MR = _shown(330, 470), _shown(480, 310), _shown(390, 400)
HIPPOCAMPUS_MR, LESION_MR = _shown(345, 510), _shown(260, 720)


@dataclass(frozen=True)
class Head:
    """One patient, and what the scanner's coils do to their image."""

    frame: Affine
    warp: Warp
    folds: Waves
    scalp_mm: float
    ventricle: float
    hippocampi: tuple[tuple[Tube, ...], tuple[Tube, ...]]
    lesions: Float[np.ndarray, "n 4"]
    bias: tuple[Waves, Waves]
    gain: Float[np.ndarray, "2"]
    noise: float


def draw_patient(rng: np.random.Generator, lesions: int | None) -> Head:
    """An invented patient; `lesions=None` gives every second one 1 to 3 of them, as (x, y, z, radius) in mm."""
    frame = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.normal(0, (6, 4, 5)), degrees=True).as_matrix()
    frame[:3, :3] = turn * rng.uniform(0.92, 1.06, 3)
    frame[:3, 3] = rng.uniform(-6, 6, 3)
    count = int(rng.integers(1, 4) * rng.integers(0, 2)) if lesions is None else lesions
    thick = rng.uniform(5.8, 7.2)
    return Head(
        frame=frame,
        warp=Warp.draw(rng, 5, 3.5, 80, 180),
        folds=Waves.draw(rng, 14, 0.9 * FOLD_MM, 1.2 * FOLD_MM),
        scalp_mm=rng.uniform(4, 8),
        ventricle=rng.uniform(0.7, 1.5),
        hippocampi=(_hippocampus(rng, -1, 0.78 * thick), _hippocampus(rng, 1, thick)),
        lesions=_lesions(rng, frame, count),
        bias=(Waves.draw(rng, 3, 220, 420), Waves.draw(rng, 3, 220, 420)),
        gain=rng.uniform(0.6, 1.8, 2),
        noise=rng.uniform(8, 26),
    )


def paint(patient: Head, shape: Shape, affine: Affine) -> Canvas:
    """The patient on a grid, as two channels without bias and noise."""
    canvas = Canvas.blank(shape, np.linalg.inv(patient.frame) @ affine, patient.warp, (2,))
    canvas.image[...] = AIR
    brain = _brain(canvas.points)
    _paint_scalp(canvas, patient, brain)
    _paint_brain(canvas, patient, brain)
    _paint_depth(canvas.window((-55, -70, -60), (55, 60, 60)), patient)
    for x, y, z, radius in patient.lesions:
        part, away = canvas.ball(patient.frame, (x, y, z), float(radius))
        part.paint(away, LESION_MR, LESION)
    return canvas


def scan(patient: Head, canvas: Canvas, rng: np.random.Generator) -> Float32[np.ndarray, "2 i j k"]:
    """What the scanner makes of it: uneven coils, a gain of its own and Rician noise."""
    bias = np.stack([np.exp(np.float32(0.13) * wave(canvas.points)) for wave in patient.bias])
    real, imaginary = rng.standard_normal((2, *canvas.image.shape), np.float32) * np.float32(patient.noise)
    shown = np.hypot(canvas.image * bias + real, imaginary)
    return shown * patient.gain.astype(np.float32).reshape(2, 1, 1, 1)


def _brain(p: Points) -> Field:
    """The distance to cerebrum, temporal lobes and cerebellum together."""
    cerebrum = np.maximum(ellipsoid(p, (0, 0, 10), (66, 84, 62)), -32 - p[2])
    side = np.stack([np.abs(p[0]), p[1], p[2]])
    temporal = ellipsoid(side, (40, 6, -24), (24, 40, 22))
    return np.minimum(np.minimum(cerebrum, temporal), ellipsoid(p, (0, -50, -36), (50, 34, 28)))


def _paint_scalp(canvas: Canvas, patient: Head, brain: Field) -> None:
    p = canvas.points
    skull = np.minimum(brain, ellipsoid(p, (0, -2, 2), (66, 84, 58)))
    neck = capsule(p, (0, -22, -40), (0, -30, -240), 54, 58)
    face = ellipsoid(p, (0, 46, -52), (52, 46, 66))
    surface = np.minimum(np.minimum(skull - 10 - patient.scalp_mm, neck), face)
    grain = patient.folds(p)
    canvas.paint(surface, SKIN)
    canvas.paint(surface + 2, FAT)
    canvas.paint(np.maximum(surface + 5, 3 - 6 * np.abs(grain)), MUSCLE)
    canvas.paint(np.maximum(skull - 10, -62 - p[2]), BONE)
    canvas.paint(np.maximum(np.abs(skull - 6.5) - 1.8, -50 - p[2]), MARROW)
    for centre, radii in (((0, 62, -34), (14, 18, 16)), ((0, 40, -62), (10, 30, 14)), ((0, 16, -90), (11, 9, 40))):
        canvas.paint(ellipsoid(p, centre, radii), AIR)
    for side in (-1, 1):
        canvas.paint(ellipsoid(p, (32 * side, 72, -26), (13, 13, 13)), FLUID)
    canvas.paint(brain - 3, FLUID)
    stem = capsule(p, (0, -16, -12), (0, -32, -220), 13, 8)
    canvas.paint(np.maximum(stem - 3, p[2] + 20), FLUID)
    canvas.paint(stem, 0.5 * (WHITE_MR + GREY_MR))


def _paint_brain(canvas: Canvas, patient: Head, brain: Field) -> None:
    """Cortex of even thickness under the surface, along the fissure between the halves and down the sulci."""
    p = canvas.points
    depth = np.minimum(-brain, np.maximum(np.abs(p[0]) - 1.2, 26 - np.hypot(p[1], p[2] - 4)))
    sheet = np.abs(patient.folds(p)) * (FOLD_MM / (2 * np.pi)) - 0.9
    under = np.minimum(depth, np.maximum(sheet, (depth - SULCUS_MM) * np.float32(0.5)))
    canvas.paint(-under, GREY_MR, GREY)
    canvas.paint(np.maximum(CORTEX_MM - under, CORTEX_MM - depth), WHITE_MR, WHITE)


def _paint_depth(canvas: Canvas, patient: Head) -> None:
    p = canvas.points
    side = np.stack([np.abs(p[0]), p[1], p[2]])
    for centre, radii in (((12, -8, 8), (8, 14, 9)), ((14, 20, 15), (5, 12, 9)), ((26, 6, 5), (6, 17, 11))):
        canvas.paint(ellipsoid(side, centre, radii), NUCLEUS_MR, GREY)
    wide = patient.ventricle
    horns = course([(7, 32, 14), (9, 4, 27), (20, -34, 17), (28, -20, 0)], 4.5 * wide, 3 * wide)
    ventricles = np.minimum(_near(side, horns), ellipsoid(p, (0, -4, 6), (2.2 * wide, 15, 11)))
    ventricles = np.minimum(ventricles, ellipsoid(p, (0, -37, -30), (6, 6, 10)))
    canvas.paint(ventricles, FLUID, VENTRICLES)
    for tubes, label in zip(patient.hippocampi, (LEFT, RIGHT), strict=True):
        canvas.paint(_near(p, tubes), HIPPOCAMPUS_MR, label)


def _near(p: Points, tubes: Sequence[Tube]) -> Field:
    return np.minimum.reduce([capsule(p, t.start, t.end, t.radius, t.end_radius) for t in tubes])


def _hippocampus(rng: np.random.Generator, side: int, thick: float) -> tuple[Tube, ...]:
    """A thick head in front, a tail that curves up and inwards behind."""
    line = np.array([(24, 2, -20), (28, -10, -17), (29, -20, -10), (23, -31, 1)], float) + rng.normal(0, 1.2, (4, 3))
    return tuple(course(list(line * (side, 1, 1) + (0, 2 * side, 0)), thick, 0.5 * thick))


def _lesions(rng: np.random.Generator, frame: Affine, count: int) -> Float[np.ndarray, "n 4"]:
    """Balls beside the ventricles, apart from the structures that have a label of their own."""
    found = np.zeros((0, 4))
    while len(found) < count:
        place = rng.uniform((28, -40, 16), (40, 36, 42)) * (rng.choice([-1, 1]), 1, 1)
        ball = np.array([*(frame[:3, :3] @ place + frame[:3, 3]), rng.uniform(3, 7)])
        if (np.linalg.norm(found[:, :3] - ball[:3], axis=1) > found[:, 3] + ball[3] + 3).all():
            found = np.vstack([found, ball])
    return found

"""Renders a phantom chest on a voxel grid as CT: HU with partial-volume edges, and noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from medssl.data.phantoms.chest_anatomy import (
    HEART_AXES,
    ChestPhantom,
    Nodule,
    diaphragm_height,
    heart_distance,
    lung_distance,
    rib_cage_distance,
    spine_curve,
)
from medssl.data.phantoms.shapes import (
    Affine,
    Canvas,
    Shape,
    capsule_distance,
    ellipsoid_distance,
    rounded_rectangle_distance,
    voxel_centres,
)
from medssl.data.phantoms.vessels import GREAT_VESSELS, OESOPHAGUS, Tube, connect_points

AIR, FAT, MUSCLE = -1000.0, -100.0, 50.0
LUNG, HEART, LIVER, SPINE, NODULE = 1, 2, 3, 4, 5
CHAMBERS = (
    ((-34, 24, -42), (24, 15, 15)),
    ((-8, 34, -40), (26, 11, 17)),
    ((8, 12, -28), (15, 16, 18)),
    ((-10, -2, -22), (21, 11, 15)),
)


def paint(patient: ChestPhantom, shape: Shape, affine: Affine) -> Canvas:
    """Renders a patient, with labels and without noise, on a grid with the given affine to scanner coordinates."""
    canvas = Canvas.create_blank(shape, np.linalg.inv(patient.frame) @ affine, patient.warp)
    canvas.image[...] = AIR
    _paint_body(canvas, patient)
    _paint_abdomen(canvas.view_box((-130, -100, -400), (130, 100, -20)), patient)
    _paint_lungs(canvas.view_box((-115, -90, -125), (115, 90, 115)), patient)
    _paint_heart(canvas, patient)
    _paint_bones(canvas, patient)
    for nodule in patient.nodules:
        _paint_nodule(canvas, patient, nodule)
    return canvas


def draw_noise(patient: ChestPhantom, canvas: Canvas, rng: np.random.Generator) -> Float32[np.ndarray, "i j k"]:
    """Draws scanner noise, correlated in space and stronger deep in the body, in small voxels and at low dose."""
    grain = rng.standard_normal(canvas.image.shape, np.float32)
    noise = ndimage.gaussian_filter(grain, 0.6, truncate=2.5)
    noise -= 0.7 * ndimage.uniform_filter(noise, 5)
    x, y = canvas.points[:2]
    depth = np.exp(-((x / 120) ** 2) - (y / 90) ** 2)
    level = patient.noise_hu * np.clip(3 / canvas.voxel_mm, 0.5, 2)
    return noise * (level / noise.std() * (0.45 + 0.75 * depth)).astype(np.float32)


def _paint_body(canvas: Canvas, patient: ChestPhantom) -> None:
    p = canvas.points
    shoulder = np.clip((p[2] - 70) / 80, 0, 1)
    narrowing = 1 - 0.42 * shoulder * shoulder * (3 - 2 * shoulder)
    fat = patient.fat_mm * (1 + 0.35 * np.sin(p[1] / 40) - 0.25 * np.clip(p[2] / 150, -1, 1))
    surface = rounded_rectangle_distance(
        p[0], p[1], (118 + patient.fat_mm) * (0.3 + 0.7 * narrowing), (82 + patient.fat_mm) * narrowing
    )
    grain = patient.texture(p)
    canvas.paint(surface, 10.0)
    canvas.paint(surface + 2, FAT + 6 * grain)
    canvas.paint(surface + 2 + fat, MUSCLE + 6 * grain)
    canvas.paint(np.maximum(surface + 5 + fat, 12 * np.abs(grain) - 1.5), FAT)
    canvas.paint(rib_cage_distance(p) + 1, FAT + 10 + 8 * grain)


def _paint_abdomen(canvas: Canvas, patient: ChestPhantom) -> None:
    p, grain = canvas.points, patient.texture(canvas.points)
    inside = np.maximum(rib_cage_distance(p) + 3, p[2] - diaphragm_height(p, patient))
    canvas.paint(inside, MUSCLE)
    canvas.paint(inside + 3, FAT + 8 * grain)
    canvas.paint(np.maximum(inside + 6, 6 * (0.4 - grain)), 35.0)
    for side in (-1, 1):
        canvas.paint(ellipsoid_distance(p, (46 * side, -40, -150), (21, 18, 42)), 34 + 0.7 * patient.contrast_hu)
    canvas.paint(
        np.maximum(ellipsoid_distance(p, (-62, -34, -92), (25, 32, 36)), inside + 4), 48 + 0.4 * patient.contrast_hu
    )
    stomach = np.maximum(ellipsoid_distance(p, (-36, 14, -96), (38, 32, 36)), inside + 4)
    canvas.paint(stomach, 45.0)
    canvas.paint(stomach + 3, 12.0)
    canvas.paint(np.maximum(stomach + 3, 28 - p[1]), AIR)
    left_lobe = ellipsoid_distance(p, (2, 30, -92), (50, 32, 30))
    liver = np.minimum(ellipsoid_distance(p, patient.liver_mm[0], patient.liver_mm[1]), left_lobe)
    canvas.paint(np.maximum(liver, inside + 4), patient.liver_hu + 0.35 * patient.contrast_hu + 3 * grain, LIVER)


def _paint_lungs(canvas: Canvas, patient: ChestPhantom) -> None:
    p = canvas.points
    lung = lung_distance(p, patient)
    canvas.paint(lung, patient.lung_hu - 0.45 * p[1] + 14 * patient.texture(p), LUNG)
    canvas.paint(np.maximum(_distance_to_tubes(canvas, patient, patient.vessels), lung + 1), 40 + patient.contrast_hu)
    airway = _distance_to_tubes(canvas, patient, patient.airways)
    canvas.paint(airway - 1.5, 20.0, 0)
    canvas.paint(airway, AIR)


def _paint_heart(canvas: Canvas, patient: ChestPhantom) -> None:
    part = canvas.view_box((-80, -70, -230), (60, 75, 130))
    blood = 40 + patient.contrast_hu
    great_vessels = [tube for points, *radii in GREAT_VESSELS for tube in connect_points(points, *radii)]
    part.paint(_distance_to_tubes(part, patient, great_vessels), blood, 0)
    part.paint(_distance_to_tubes(part, patient, connect_points(OESOPHAGUS, 6, 6)), 35.0, 0)
    p = part.points
    muscle = heart_distance(p, patient)
    part.paint(muscle - 2, FAT)
    part.paint(muscle, 45 + 0.4 * patient.contrast_hu, HEART)
    for centre, radii in CHAMBERS:
        part.paint(np.maximum(ellipsoid_distance(p, centre, radii, HEART_AXES), muscle + 3), blood)


def _paint_bones(canvas: Canvas, patient: ChestPhantom) -> None:
    p = canvas.points
    wall = rib_cage_distance(p)
    pitch, phase = patient.rib_mm
    level = np.mod(p[2] + 0.5 * p[1] - phase, pitch) - pitch / 2
    rib = (np.hypot((wall - 5) / 3.6, level / 5.5) - 1) * 4
    rib = np.maximum(rib, -80 + 0.6 * p[1] - p[2])
    rib = np.maximum(rib, 16 - np.abs(p[0]))
    cartilage = np.clip((p[1] - 44) / 6, 0, 1)
    canvas.paint(np.maximum(rib, p[2] - 100), 480 - 360 * cartilage)
    canvas.paint(np.maximum(rib + 2, p[2] - 100), 220 - 110 * cartilage)
    sternum = np.maximum(np.abs(wall - 6) - 5, np.abs(p[0] - 1) - 15)
    canvas.paint(np.maximum(sternum, np.maximum(50 - p[1], np.abs(p[2] - 22) - 55)), 230.0)
    for side in (-1, 1):
        part = canvas.view_box((min(10 * side, 100 * side), 0, 70), (max(10 * side, 100 * side), 75, 115))
        part.paint(capsule_distance(part.points, (14 * side, 56, 82), (92 * side, 22, 100), 6, 6), 420.0)
    blade = np.maximum(np.abs(wall - 16) - 2.5, np.maximum(np.abs(np.abs(p[0]) - 76) - 34, p[1] + 18))
    canvas.paint(np.maximum(blade, np.abs(p[2] - 58) - 36), 400.0)
    _paint_spine(canvas.view_box((-45, -125, -400), (45, -35, 400)), patient)


def _paint_spine(canvas: Canvas, patient: ChestPhantom) -> None:
    x, z = canvas.points[0], canvas.points[2]
    y = canvas.points[1] + 64 - spine_curve(canvas.points)
    level = np.abs(np.mod(z - patient.rib_mm[1], 24) - 12)
    body = (np.hypot(x / (16 + 0.012 * level * level), y / 13) - 1) * 14
    arch = np.maximum(np.abs(np.hypot(x, y + 21) - 10) - 2.5, level - 10)
    spinous = np.maximum(np.maximum(np.abs(x) - 3, np.abs(y + 33) - 6), level - 8)
    transverse = np.maximum(np.maximum(np.abs(x) - 29, np.abs(y + 21 + np.abs(x) / 4) - 4), level - 5)
    bone = np.minimum(np.minimum(arch, spinous), np.maximum(transverse, 9 - np.abs(x)))
    canvas.paint(np.hypot(x, y + 21) - 8, 25.0)
    canvas.paint(bone, 380.0, SPINE)
    canvas.paint(body, 480.0, SPINE)
    canvas.paint(np.maximum(body + 2.5, level - 8.5), 190 + 25 * patient.texture(canvas.points))
    canvas.paint(np.maximum(body + 1, 10 - level), 85.0)


def _paint_nodule(canvas: Canvas, patient: ChestPhantom, nodule: Nodule) -> None:
    part, distance = canvas.view_ball(patient.frame, nodule.centre_mm, nodule.diameter_mm / 2)
    part.paint(distance, nodule.hu, NODULE)
    if nodule.core_mm:
        part.paint(distance + (nodule.diameter_mm - nodule.core_mm) / 2, 20.0)


def _distance_to_tubes(canvas: Canvas, patient: ChestPhantom, tubes: Sequence[Tube]) -> Float32[np.ndarray, "i j k"]:
    """Computes the distance to the nearest tube wherever it is small, and 99 elsewhere.

    The warp moves only the ends of a tube. Each tube stays straight, so that its window is small.
    """
    scratch = replace(canvas, image=np.full_like(canvas.image, 99), reach_mm=0.0)
    ends = patient.warp.invert(np.array([t.start for t in tubes] + [t.end for t in tubes], np.float32).T).T
    for tube, start, end in zip(tubes, ends, ends[len(tubes) :], strict=False):
        reach = max(tube.radius, tube.end_radius) + 2
        part = scratch.view_box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        distance = capsule_distance(voxel_centres(part.shape, part.affine), start, end, tube.radius, tube.end_radius)
        np.minimum(part.image, distance, out=part.image)
    return scratch.image

"""Phantoms: CT-like chests and MR-like heads from a seed, whose every answer is known in mm."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from medssl.data import phantom_chest, phantom_ct, phantom_head
from medssl.data.phantom_chest import Nodule
from medssl.data.phantom_shapes import Affine, Shape
from medssl.volume import AXES, Spacing, Volume

CHEST_LABELS = {1: "lung", 2: "heart", 3: "liver", 4: "spine", 5: "nodule"}
HEAD_LABELS = {
    1: "grey matter",
    2: "white matter",
    3: "ventricles",
    4: "left hippocampus",
    5: "right hippocampus",
    6: "lesion",
}


@dataclass(frozen=True)
class Phantom:
    """An invented patient's scan and its exact truth; `nodules` are those whose centre lies in the scan."""

    name: str
    patient: str
    image: Volume
    label: Volume
    nodules: tuple[Nodule, ...]
    label_names: dict[int, str]


def chest(
    seed: int,
    shape: Shape = (96, 96, 96),
    spacing_mm: Spacing = (3.0, 3.0, 3.0),
    orientation: str = "RAS",
    nodules: int | None = None,
    oblique_deg: float = 0.0,
) -> Phantom:
    """A chest CT in HU; the seed is the patient, the rest is how the scanner lays its grid over them."""
    patient = phantom_chest.draw_patient(np.random.default_rng([seed, 1]), nodules)
    affine = grid_affine(shape, spacing_mm, orientation, oblique_deg)
    canvas = phantom_ct.paint(patient, shape, affine)
    noise = phantom_ct.noise(patient, canvas, np.random.default_rng([seed, 2]))
    image = np.rint(np.clip(canvas.image + noise, -1024, 3071)).astype(np.int16)
    voxels = Volume(image, affine, "HU")
    seen = tuple(n for n in patient.nodules if _inside(voxels, n.centre_mm))
    return Phantom(
        f"chest-{seed:04d}", f"PH-C{seed:04d}", voxels, Volume(canvas.label, affine, "label"), seen, CHEST_LABELS
    )


def head(
    seed: int,
    shape: Shape = (96, 112, 96),
    spacing_mm: Spacing = (2.0, 2.0, 2.0),
    orientation: str = "RAS",
    lesions: int | None = None,
    oblique_deg: float = 0.0,
) -> Phantom:
    """A head MR of two registered sequences, T1-like and T2-like, as channels; its lesions are in the label."""
    patient = phantom_head.draw_patient(np.random.default_rng([seed, 3]), lesions)
    affine = grid_affine(shape, spacing_mm, orientation, oblique_deg)
    canvas = phantom_head.paint(patient, shape, affine)
    shown = phantom_head.scan(patient, canvas, np.random.default_rng([seed, 4]))
    image = Volume(np.rint(shown).astype(np.int16), affine, "a.u.")
    return Phantom(f"head-{seed:04d}", f"PH-H{seed:04d}", image, Volume(canvas.label, affine, "label"), (), HEAD_LABELS)


def grid_affine(shape: Shape, spacing_mm: Spacing, orientation: str, oblique_deg: float) -> Affine:
    """The affine of a grid centred on the world's origin, tilted by `oblique_deg` about a slanting axis."""
    axes = np.zeros((3, 3))
    for axis, code in enumerate(orientation):
        world = next(w for w, pair in enumerate(AXES) if code in pair)
        axes[world, axis] = 1 if code in "RAS" else -1
    tilt = Rotation.from_rotvec(np.deg2rad(oblique_deg) * np.array([2, 1, 2]) / 3).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * np.asarray(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _inside(volume: Volume, mm: tuple[float, float, float]) -> bool:
    index = volume.to_index(np.asarray(mm))
    return bool(((index > -0.5) & (index < np.asarray(volume.shape) - 0.5)).all())

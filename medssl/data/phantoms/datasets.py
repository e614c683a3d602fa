"""Simulates scans of invented patients with exact ground truth, singly or as a folder of files."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from medssl.data.phantoms import chest_anatomy, chest_ct, head_mr
from medssl.data.phantoms.chest_anatomy import NODULE_MM, Nodule
from medssl.data.phantoms.shapes import Affine, Shape
from medssl.errors import BadInput
from medssl.files import write_json, write_text
from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import AXES, Spacing, Volume

PhantomKind = Literal["chest", "head"]

CHEST_LABELS = {1: "lung", 2: "heart", 3: "liver", 4: "spine", 5: "nodule"}
HEAD_LABELS = {
    1: "grey matter",
    2: "white matter",
    3: "ventricles",
    4: "left hippocampus",
    5: "right hippocampus",
    6: "lesion",
}

SEQUENCES = {"chest": ("CT",), "head": ("T1", "T2")}
README = "Simulated scans of invented patients. Nothing here shows a real person.\n"


@dataclass(frozen=True)
class Phantom:
    """A simulated scan with its exact ground truth.

    Attributes:
        name: Case id.
        patient: Patient id.
        image: The scan, with channels first if there are several sequences.
        label: Label values on the grid of the scan.
        nodules: Nodules with their centre in the scan.
        label_names: Label value -> class name.
    """

    name: str
    patient: str
    image: Volume
    label: Volume
    nodules: tuple[Nodule, ...]
    label_names: dict[int, str]


@dataclass(frozen=True)
class Protocol:
    """Orientation and spacing of a scanner's grid.

    Attributes:
        orientation: Body directions that i, j and k run to, such as "RAS".
        relative_spacing: Spacing along i, j and k as a factor of a standard spacing.
        oblique_deg: Tilt of the grid.
    """

    orientation: str
    relative_spacing: tuple[float, float, float]
    oblique_deg: float = 0.0


PROTOCOLS = (
    Protocol("RAS", (1.0, 1.0, 1.0)),
    Protocol("LPS", (0.85, 0.85, 1.3)),
    Protocol("PSR", (1.0, 1.0, 1.25)),
    Protocol("LPS", (1.1, 1.1, 0.8), 7.0),
    Protocol("RSA", (0.9, 1.1, 1.15)),
)  # axial twice, sagittal, oblique and coronal


def simulate_chest_ct(
    seed: int,
    shape: Shape = (96, 96, 96),
    spacing_mm: Spacing = (3.0, 3.0, 3.0),
    orientation: str = "RAS",
    num_nodules: int | None = None,
    oblique_deg: float = 0.0,
    nodule_scale: float = 1.0,
    nodule_mm: tuple[float, float] = NODULE_MM,
) -> Phantom:
    """Simulates a chest CT in HU.

    Args:
        seed: Determines the patient and the noise.
        shape: Voxels along i, j, k.
        spacing_mm: Spacing along i, j, k.
        orientation: Body directions that i, j and k run to.
        num_nodules: Number of lung nodules; None draws 0 to 4.
        oblique_deg: Tilt of the grid.
        nodule_scale: Factor on the diameters of the nodules, which simulates the same patient on another day.
        nodule_mm: Range of the diameters of the nodules.
    """
    patient = chest_anatomy.draw_patient(np.random.default_rng([seed, 1]), num_nodules, nodule_mm)
    nodules = tuple(
        replace(n, diameter_mm=n.diameter_mm * nodule_scale, core_mm=n.core_mm * nodule_scale) for n in patient.nodules
    )
    patient = replace(patient, nodules=nodules)
    affine = grid_affine(shape, spacing_mm, orientation, oblique_deg)
    canvas = chest_ct.paint(patient, shape, affine)
    noise = chest_ct.draw_noise(patient, canvas, np.random.default_rng([seed, 2]))
    image = np.rint(np.clip(canvas.image + noise, -1024, 3071)).astype(np.int16)
    volume = Volume(image, affine, "HU")
    visible = tuple(n for n in patient.nodules if _is_inside(volume, n.centre_mm))
    return Phantom(
        f"chest-{seed:04d}", f"PH-C{seed:04d}", volume, Volume(canvas.label, affine, "label"), visible, CHEST_LABELS
    )


def simulate_head_mr(
    seed: int,
    shape: Shape = (96, 112, 96),
    spacing_mm: Spacing = (2.0, 2.0, 2.0),
    orientation: str = "RAS",
    num_lesions: int | None = None,
    oblique_deg: float = 0.0,
) -> Phantom:
    """Simulates a head MR of two registered sequences, T1-like and T2-like, as channels.

    Args:
        seed: Determines the patient and the noise.
        shape: Voxels along i, j, k.
        spacing_mm: Spacing along i, j, k.
        orientation: Body directions that i, j and k run to.
        num_lesions: Number of lesions; None gives half of all patients 1 to 3.
        oblique_deg: Tilt of the grid.
    """
    patient = head_mr.draw_patient(np.random.default_rng([seed, 3]), num_lesions)
    affine = grid_affine(shape, spacing_mm, orientation, oblique_deg)
    canvas = head_mr.paint(patient, shape, affine)
    voxels = head_mr.acquire(patient, canvas, np.random.default_rng([seed, 4]))
    image = Volume(np.rint(voxels).astype(np.int16), affine, "a.u.")
    return Phantom(f"head-{seed:04d}", f"PH-H{seed:04d}", image, Volume(canvas.label, affine, "label"), (), HEAD_LABELS)


def write_demo_folder(
    out: Path,
    seed: int,
    num_labelled: int,
    num_unlabelled: int,
    shape: Shape = (96, 96, 96),
    spacing_mm: float = 3.0,
    kind: PhantomKind = "chest",
    nodule_mm: tuple[float, float] = NODULE_MM,
) -> Path:
    """Writes a folder as a hospital would hand it out, and the ground truth of its scans.

    `curated/` holds labelled NIfTI files with a dataset.json, and `archive/` unlabelled DICOM series in nested
    folders, with a localizer. Every scan is of another patient, on the grid of the next protocol.

    Args:
        out: Folder that is missing or empty.
        seed: Determines the patients.
        num_labelled: Number of scans in `curated/`.
        num_unlabelled: Number of scans in `archive/`.
        shape: Voxels of the first scan along i, j, k; all scans have the same field of view.
        spacing_mm: Spacing of the first scan.
        kind: Chest CT or head MR.
        nodule_mm: Range of the diameters of the nodules of chests.

    Returns:
        The path of truth.json, which lists each scan's file, patient and nodules in mm.
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out}: is not empty; choose another folder")
    scans = _simulate_scans(seed, num_labelled + num_unlabelled, shape, spacing_mm, kind, nodule_mm)
    cases = [_write_curated(next(scans), out / "curated", kind) for _ in range(num_labelled)]
    if cases:
        _write_dataset_json(out / "curated", [str(case["case"]) for case in cases], kind)
    cases += [_write_archived(scan, out, n, kind) for n, scan in enumerate(scans)]
    write_text(out / "README.txt", README)
    write_json(out / "truth.json", {"kind": kind, "seed": seed, "cases": cases})
    return out / "truth.json"


def grid_affine(shape: Shape, spacing_mm: Spacing, orientation: str, oblique_deg: float) -> Affine:
    """Computes the affine of a grid centred on the world's origin and tilted by `oblique_deg` about an oblique axis."""
    axes = np.zeros((3, 3))
    for axis, code in enumerate(orientation):
        world = next(w for w, pair in enumerate(AXES) if code in pair)
        axes[world, axis] = 1 if code in "RAS" else -1
    tilt = Rotation.from_rotvec(np.deg2rad(oblique_deg) * np.array([2, 1, 2]) / 3).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * np.asarray(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _is_inside(volume: Volume, point_mm: tuple[float, float, float]) -> bool:
    index = volume.to_index(np.asarray(point_mm))
    return bool(((index > -0.5) & (index < np.asarray(volume.shape) - 0.5)).all())


def _simulate_scans(
    seed: int, count: int, shape: Shape, spacing_mm: float, kind: PhantomKind, nodule_mm: tuple[float, float]
) -> Iterator[Phantom]:
    """Simulates scans on each protocol in turn, all with the same field of view."""
    for n in range(count):
        protocol = PROTOCOLS[n % len(PROTOCOLS)]
        world = [next(w for w, pair in enumerate(AXES) if code in pair) for code in protocol.orientation]
        i, j, k = (round(shape[w] / step) for w, step in zip(world, protocol.relative_spacing, strict=True))
        x, y, z = (step * spacing_mm for step in protocol.relative_spacing)
        simulate = partial(simulate_chest_ct, nodule_mm=nodule_mm) if kind == "chest" else simulate_head_mr
        number = 1000 * seed + n
        yield simulate(number, (i, j, k), (x, y, z), protocol.orientation, oblique_deg=protocol.oblique_deg)


def _write_curated(scan: Phantom, folder: Path, kind: PhantomKind) -> dict[str, object]:
    """Writes image and label in the layout of the Medical Segmentation Decathlon, with a file for each sequence."""
    for volume, path in zip(_split_channels(scan), _image_paths(scan.name, kind), strict=True):
        nifti.write(volume, folder / path)
    nifti.write(scan.label, folder / f"labelsTr/{scan.name}.nii.gz")
    return _describe_truth(scan, f"{folder.name}/{_image_paths(scan.name, kind)[0]}")


def _image_paths(name: str, kind: PhantomKind) -> list[str]:
    count = len(SEQUENCES[kind])
    return [f"imagesTr/{name}{f'_{n:04}' if count > 1 else ''}.nii.gz" for n in range(count)]


def _write_dataset_json(folder: Path, names: list[str], kind: PhantomKind) -> None:
    labels = CHEST_LABELS if kind == "chest" else HEAD_LABELS
    images = {name: [f"./{path}" for path in _image_paths(name, kind)] for name in names}
    training = [
        {"image": paths[0] if len(paths) == 1 else paths, "label": f"./labelsTr/{name}.nii.gz"}
        for name, paths in images.items()
    ]
    dataset = {
        "name": f"phantom {kind}s",
        "description": README.strip(),
        "modality": dict(enumerate(SEQUENCES[kind])),
        "labels": {0: "background", **labels},
        "numTraining": len(training),
        "training": training,
    }
    write_json(folder / "dataset.json", dataset)


def _write_archived(scan: Phantom, out: Path, number: int, kind: PhantomKind) -> dict[str, object]:
    """Writes a DICOM series for each sequence in nested folders; the first patient has a localizer too."""
    study = Path("archive", scan.patient, f"STUDY{number % 3 + 1}")
    rng = np.random.default_rng(number)
    for volume, sequence in zip(_split_channels(scan), SEQUENCES[kind], strict=True):
        info = SeriesInfo(scan.patient, study.name, sequence, "CT" if kind == "chest" else "MR", f"{kind} {sequence}")
        write_series(volume, out / study / sequence, info, rng.permutation(volume.shape[2]).tolist())
        if number == 0:
            middle = volume.shape[2] // 2
            single = replace(volume, voxels=volume.voxels[:, :, middle : middle + 1])
            localizer = replace(info, series=f"{sequence}-SCOUT", description="localizer", localizer=True)
            write_series(single, out / study / f"{sequence}-SCOUT", localizer)
    return _describe_truth(scan, str(study))


def _split_channels(scan: Phantom) -> list[Volume]:
    voxels = scan.image.voxels
    return [scan.image] if voxels.ndim == 3 else [replace(scan.image, voxels=channel) for channel in voxels]


def _describe_truth(scan: Phantom, where: str) -> dict[str, object]:
    nodules = [asdict(nodule) for nodule in scan.nodules]
    return {"case": scan.name, "patient": scan.patient, "where": where, "nodules": nodules}

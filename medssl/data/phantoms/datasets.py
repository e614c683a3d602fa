"""Phantoms: scans of invented patients whose every answer is known in mm, one by one or as a hospital's folder."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from medssl.data.phantoms import chest_anatomy as phantom_chest
from medssl.data.phantoms import chest_ct as phantom_ct
from medssl.data.phantoms import head_mr as phantom_head
from medssl.data.phantoms.chest_anatomy import Nodule
from medssl.data.phantoms.shapes import Affine, Shape
from medssl.errors import BadInput
from medssl.files import write_json, write_text
from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, dicom_series
from medssl.volume import AXES, Spacing, Volume

Kind = Literal["chest", "head"]

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
README = "Invented patients, drawn by a program. Nobody was scanned; nothing here shows a person.\n"


@dataclass(frozen=True)
class Phantom:
    """An invented patient's scan and its exact truth; `nodules` are those whose centre lies in the scan."""

    name: str
    patient: str
    image: Volume
    label: Volume
    nodules: tuple[Nodule, ...]
    label_names: dict[int, str]


@dataclass(frozen=True)
class Protocol:
    """How a scanner lays its grid: which way i, j and k run, and how far apart the voxels lie, of a standard of 1."""

    orientation: str
    steps: tuple[float, float, float]
    oblique_deg: float = 0.0


PROTOCOLS = (
    Protocol("RAS", (1.0, 1.0, 1.0)),
    Protocol("LPS", (0.85, 0.85, 1.3)),
    Protocol("PSR", (1.0, 1.0, 1.25)),
    Protocol("LPS", (1.1, 1.1, 0.8), 7.0),
    Protocol("RSA", (0.9, 1.1, 1.15)),
)  # axial twice, sagittal, oblique and coronal


def chest(
    seed: int,
    shape: Shape = (96, 96, 96),
    spacing_mm: Spacing = (3.0, 3.0, 3.0),
    orientation: str = "RAS",
    nodules: int | None = None,
    oblique_deg: float = 0.0,
    grown: float = 1.0,
) -> Phantom:
    """A chest CT in HU; the seed is the patient, the rest is how the scanner lays its grid over them.

    Their nodules have `grown` times the diameter that they otherwise have: the same patient, another day.
    """
    patient = phantom_chest.draw_patient(np.random.default_rng([seed, 1]), nodules)
    sized = tuple(replace(n, diameter_mm=n.diameter_mm * grown, core_mm=n.core_mm * grown) for n in patient.nodules)
    patient = replace(patient, nodules=sized)
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


def demo_folder(
    out: Path,
    seed: int,
    labelled: int,
    unlabelled: int,
    shape: Shape = (96, 96, 96),
    spacing_mm: float = 3.0,
    kind: Kind = "chest",
) -> Path:
    """Fills a folder as a hospital would and returns its truth.json: each scan's file, patient and nodules in mm.

    `curated/` holds labelled NIfTI files with a dataset.json, `archive/` unlabelled DICOM series in nested folders and
    a localizer, and beside them lies a README. Every scan is another patient, on the grid of the next protocol;
    `shape` and `spacing_mm` are those of the first one, whose field of view all others have too.
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out}: is not empty; choose another folder")
    scans = _scans(seed, labelled + unlabelled, shape, spacing_mm, kind)
    cases = [_curate(next(scans), out / "curated", kind) for _ in range(labelled)]
    if cases:
        _describe(out / "curated", [str(case["case"]) for case in cases], kind)
    cases += [_archive(scan, out, n, kind) for n, scan in enumerate(scans)]
    write_text(out / "README.txt", README)
    write_json(out / "truth.json", {"kind": kind, "seed": seed, "cases": cases})
    return out / "truth.json"


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


def _scans(seed: int, count: int, shape: Shape, spacing_mm: float, kind: Kind) -> Iterator[Phantom]:
    """One phantom after the other, on the protocols in turn, all with the same field of view."""
    for n in range(count):
        protocol = PROTOCOLS[n % len(PROTOCOLS)]
        world = [next(w for w, pair in enumerate(AXES) if code in pair) for code in protocol.orientation]
        i, j, k = (round(shape[w] / step) for w, step in zip(world, protocol.steps, strict=True))
        x, y, z = (step * spacing_mm for step in protocol.steps)
        draw = chest if kind == "chest" else head
        number = 1000 * seed + n
        yield draw(number, (i, j, k), (x, y, z), protocol.orientation, oblique_deg=protocol.oblique_deg)


def _curate(scan: Phantom, folder: Path, kind: Kind) -> dict[str, object]:
    """Image and label as files of the Decathlon's layout; several sequences are several files."""
    for volume, path in zip(_channels(scan), _files(scan.name, kind), strict=True):
        nifti.write(volume, folder / path)
    nifti.write(scan.label, folder / f"labelsTr/{scan.name}.nii.gz")
    return _truth(scan, f"{folder.name}/{_files(scan.name, kind)[0]}")


def _files(name: str, kind: Kind) -> list[str]:
    count = len(SEQUENCES[kind])
    return [f"imagesTr/{name}{f'_{n:04}' if count > 1 else ''}.nii.gz" for n in range(count)]


def _describe(folder: Path, names: list[str], kind: Kind) -> None:
    labels = CHEST_LABELS if kind == "chest" else HEAD_LABELS
    images = {name: [f"./{path}" for path in _files(name, kind)] for name in names}
    listed = [
        {"image": paths[0] if len(paths) == 1 else paths, "label": f"./labelsTr/{name}.nii.gz"}
        for name, paths in images.items()
    ]
    told = {
        "name": f"phantom {kind}s",
        "description": README.strip(),
        "modality": dict(enumerate(SEQUENCES[kind])),
        "labels": {0: "background", **labels},
        "numTraining": len(listed),
        "training": listed,
    }
    write_json(folder / "dataset.json", told)


def _archive(scan: Phantom, out: Path, number: int, kind: Kind) -> dict[str, object]:
    """A DICOM series a sequence, in a folder a patient, study and series; the first patient has a localizer too."""
    study = Path("archive", scan.patient, f"STUDY{number % 3 + 1}")
    rng = np.random.default_rng(number)
    for volume, sequence in zip(_channels(scan), SEQUENCES[kind], strict=True):
        info = SeriesInfo(scan.patient, study.name, sequence, "CT" if kind == "chest" else "MR", f"{kind} {sequence}")
        dicom_series(volume, out / study / sequence, info, rng.permutation(volume.shape[2]).tolist())
        if number == 0:
            middle = volume.shape[2] // 2
            single = replace(volume, voxels=volume.voxels[:, :, middle : middle + 1])
            scout = replace(info, series=f"{sequence}-SCOUT", description="localizer", localizer=True)
            dicom_series(single, out / study / f"{sequence}-SCOUT", scout)
    return _truth(scan, str(study))


def _channels(scan: Phantom) -> list[Volume]:
    voxels = scan.image.voxels
    return [scan.image] if voxels.ndim == 3 else [replace(scan.image, voxels=channel) for channel in voxels]


def _truth(scan: Phantom, where: str) -> dict[str, object]:
    nodules = [asdict(nodule) for nodule in scan.nodules]
    return {"case": scan.name, "patient": scan.patient, "where": where, "nodules": nodules}

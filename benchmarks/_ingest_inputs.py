"""Writes the scans that `benchmarks.ingest` reads."""

import json
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import Volume

SHAPE, SPACING = (256, 256, 120), (0.8, 0.8, 2.0)
SMALL_SLICES = 50  # of a series of small slices
AFFINE = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])


def write_decathlon(folder: Path, count: int) -> None:
    """Writes noisy CTs in LPS order with a label of three classes, as a Decathlon set."""
    training = []
    for n in range(count):
        smooth = _draw_smooth(n)
        label = np.digitize(smooth, (250, 350, 450)).astype(np.uint8)
        for volume in (_make_ct(smooth, n), Volume(label, AFFINE, "label")):
            place = folder / ("labelsTr" if volume.unit == "label" else "imagesTr")
            place.mkdir(parents=True, exist_ok=True)
            nifti.write(volume, place / f"c{n}.nii.gz")
        training.append({"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"})
    description = {
        "labels": {"0": "background", "1": "a", "2": "b", "3": "c"},
        "modality": {"0": "CT"},
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def write_dicom(folder: Path, count: int) -> None:
    """Writes the same CTs as DICOM series, one a folder."""
    for n in range(count):
        write_series(_make_ct(_draw_smooth(n), n), folder / f"c{n}", SeriesInfo(patient=f"P{n}"))


def write_long_ct(folder: Path, num_slices: int) -> int:
    """Writes a CT of many slices of 512 x 512 pixels, and returns its size in memory in bytes."""
    random = np.random.default_rng(0)
    plane = ndimage.zoom(random.normal(0, 300, (32, 32)), 16, order=1)
    voxels = np.empty((512, 512, num_slices), np.int16)
    for k in range(num_slices):
        voxels[:, :, k] = np.clip(plane + random.normal(0, 25, plane.shape), -1024, 3000)
    write_series(Volume(voxels, np.diag([-0.7, -0.7, 0.8, 1.0]), "HU"), folder, SeriesInfo(patient="P"))
    return voxels.nbytes


def write_small_files(folder: Path, count: int) -> None:
    """Writes DICOM files of 16 x 16 pixels, several series of equal length."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (16, 16, SMALL_SLICES)).astype(np.int16)
    volume = Volume(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]), "HU")
    for n in range(count // SMALL_SLICES):
        write_series(volume, folder / f"s{n}", SeriesInfo(patient=f"P{n}", series=f"{n}"))


def pack_zip(folder: Path, archive: Path) -> None:
    """Writes all files of a folder into a zip."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*.dcm")):
            file.write(path, path.relative_to(folder))


def _draw_smooth(seed: int) -> Float32[np.ndarray, "i j k"]:
    coarse = np.random.default_rng(seed).normal(0, 300, (16, 16, 8)).astype(np.float32)
    return ndimage.zoom(coarse, (16, 16, 15), order=1)


def _make_ct(smooth: Float32[np.ndarray, "i j k"], seed: int) -> Volume:
    noise = np.random.default_rng(seed + 1000).normal(0, 25, SHAPE)
    return Volume((smooth + noise).round().clip(-1024, 3000).astype(np.int16), AFFINE, "HU")

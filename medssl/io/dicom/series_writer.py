"""Volumes written as real DICOM series of CT or MR images, one file a slice.

After DICOM PS3.3, sections A.3 (CT Image IOD) and A.4 (MR Image IOD), https://www.dicomstandard.org/current.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from medssl.errors import BadInput
from medssl.files import atomic
from medssl.volume import Volume

LPS = np.array([-1.0, -1.0, 1.0])
CT_INTERCEPT = -1024
CT: dict[str, object] = {
    "SOPClassUID": CTImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "KVP": "120",
    "AcquisitionNumber": "1",
    "RescaleSlope": "1",
    "RescaleIntercept": str(CT_INTERCEPT),
}
MR: dict[str, object] = {
    "SOPClassUID": MRImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "ScanningSequence": "GR",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "",
    "EchoTime": "",
    "EchoTrainLength": "",
}
EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "AccessionNumber",
    "PositionReferenceIndicator",
)


@dataclass(frozen=True)
class SeriesInfo:
    """What a series says of itself; the UIDs follow from `patient`, `study` and `series` alone."""

    patient: str
    study: str = "1"
    series: str = "1"
    modality: Literal["CT", "MR"] = "CT"
    description: str = ""
    date: str = "20260101"
    localizer: bool = False
    manufacturer: str = "medssl phantom"


def dicom_series(volume: Volume, folder: Path, info: SeriesInfo, order: Sequence[int] | None = None) -> list[Path]:
    """Writes one file for each slice along k and returns the paths in the order of k.

    `order` gives the slices other instance numbers and file names, as many scanners and archives do.
    """
    _check(volume, folder, info)
    numbers = range(volume.shape[2]) if order is None else order
    if sorted(numbers) != list(range(volume.shape[2])):
        raise BadInput(f"{folder}: `order` must name each of the {volume.shape[2]} slices once")
    paths = []
    for k, number in enumerate(numbers):
        path = folder / f"IM{number + 1:05}.dcm"
        with atomic(path) as part:
            dcmwrite(part, _slice(volume, k, number + 1, info), enforce_file_format=True)
        paths.append(path)
    return paths


def uid(*names: str) -> UID:
    """A UID that is the same for the same names, as ITU-T X.667 derives it from a name-based UUID."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('medssl', *names))).int}")


def _check(volume: Volume, folder: Path, info: SeriesInfo) -> None:
    if volume.voxels.ndim != 3:
        raise BadInput(f"{folder}: a series has one channel, this volume {len(volume.voxels)}; write one series each")
    if (info.modality == "CT") != (volume.unit == "HU"):
        raise BadInput(f"{folder}: a CT is in HU and an MR is not, this is {info.modality} in {volume.unit}")
    if not np.issubdtype(volume.voxels.dtype, np.integer):
        raise BadInput(f"{folder}: DICOM stores whole numbers, the voxels are {volume.voxels.dtype}; round them first")
    low, high = (-1024, 64511) if info.modality == "CT" else (0, 65535)
    if volume.voxels.min() < low or volume.voxels.max() > high:
        found = f"{volume.voxels.min()} to {volume.voxels.max()}"
        raise BadInput(f"{folder}: {info.modality} is stored from {low} to {high}, this is {found}; clip it first")
    axes = volume.affine[:3, :3] / volume.spacing_mm()
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-6:
        raise BadInput(f"{folder}: the axes are not at right angles, as a series needs; resample the volume first")


def _slice(volume: Volume, k: int, number: int, info: SeriesInfo) -> Dataset:
    stored = volume.voxels[:, :, k].astype(np.int32)
    if info.modality == "CT":
        stored = stored - CT_INTERCEPT
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = CT if info.modality == "CT" else MR
    if info.localizer:
        kind = kind | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    for keyword, value in (kind | _names(info) | _place(volume, k) | _pixels(stored)).items():
        setattr(data, keyword, value)
    data.InstanceNumber = str(number)
    data.SOPInstanceUID = uid(info.patient, info.study, info.series, str(k))
    return data


def _names(info: SeriesInfo) -> dict[str, object]:
    return {
        **dict.fromkeys(EMPTY, ""),
        "PatientName": f"{info.patient}^Phantom",
        "PatientID": info.patient,
        "StudyInstanceUID": uid(info.patient, info.study),
        "SeriesInstanceUID": uid(info.patient, info.study, info.series),
        "FrameOfReferenceUID": uid(info.patient, info.study, "frame"),
        "StudyID": info.study[:16],
        "StudyDate": info.date,
        "StudyTime": "120000",
        "SeriesNumber": str(int(info.series)) if info.series.isdigit() else "",
        "SeriesDescription": info.description,
        "Modality": info.modality,
        "Manufacturer": info.manufacturer,
        "PatientPosition": "HFS",
    }


def _place(volume: Volume, k: int) -> dict[str, object]:
    """Where the slice lies: DICOM counts i along a row, j down a column, and mm towards left and back."""
    spacing = volume.spacing_mm()
    axes = (volume.affine[:3, :3] / spacing).T * LPS
    corner = volume.to_mm(np.array([0.0, 0.0, k])) * LPS
    return {
        "ImageOrientationPatient": _decimals(np.concatenate([axes[0], axes[1]])),
        "ImagePositionPatient": _decimals(corner),
        "PixelSpacing": _decimals(np.array([spacing[1], spacing[0]])),
        "SliceThickness": format_number_as_ds(spacing[2]),
    }


def _decimals(numbers: Float[np.ndarray, "n"]) -> list[str]:
    return [format_number_as_ds(float(n) + 0.0) for n in numbers]


def _pixels(stored: Integer[np.ndarray, "i j"]) -> dict[str, object]:
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[1],
        "Columns": stored.shape[0],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": np.ascontiguousarray(stored.T).astype("<u2").tobytes(),
    }

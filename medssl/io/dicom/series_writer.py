"""Writes volumes as DICOM series of CT or MR images, one file per slice.

After DICOM PS3.3, sections A.3 (CT Image IOD) and A.4 (MR Image IOD), https://www.dicomstandard.org/current.
"""

import hashlib
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
from medssl.files import atomic_file
from medssl.version import __version__
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
EMPTY_ATTRIBUTES = (
    "PatientBirthDate",
    "PatientSex",
    "ReferringPhysicianName",
    "AccessionNumber",
    "PositionReferenceIndicator",
)


@dataclass(frozen=True)
class SeriesInfo:
    """The header values of a series to write; all UIDs are derived from `patient`, `study` and `series`.

    Args:
        patient: The PatientID.
        study: The StudyID.
        series: The series number.
        modality: "CT" or "MR".
        description: The SeriesDescription.
        date: The date of the study, YYYYMMDD.
        localizer: Whether the images are marked as a localizer.
        manufacturer: The manufacturer of the scanner.
    """

    patient: str
    study: str = "1"
    series: str = "1"
    modality: Literal["CT", "MR"] = "CT"
    description: str = ""
    date: str = "20260101"
    localizer: bool = False
    manufacturer: str = "medssl phantom"


def write_series(volume: Volume, folder: Path, info: SeriesInfo, order: Sequence[int] | None = None) -> list[Path]:
    """Writes one file for each slice along k.

    Args:
        volume: A CT in HU, or an MR in arbitrary units, of whole numbers.
        folder: The folder of the files.
        info: The header values.
        order: The instance numbers of the slices minus 1, which also number the files; by default the order along k.

    Returns:
        The paths in the order of k.
    """
    _check_volume(volume, folder, info)
    numbers = range(volume.shape[2]) if order is None else order
    if sorted(numbers) != list(range(volume.shape[2])):
        raise BadInput(f"{folder}: `order` must name each of the {volume.shape[2]} slices once")
    paths = []
    for k, number in enumerate(numbers):
        path = folder / f"IM{number + 1:05}.dcm"
        with atomic_file(path) as part:
            dcmwrite(part, _build_slice(volume, k, number + 1, info), enforce_file_format=True)
        paths.append(path)
    return paths


def derive_uid(*names: str) -> UID:
    """Derives a UID from names with a name-based UUID (ITU-T X.667); the same names give the same UID."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('medssl', *names))).int}")


def derive_document_uids(kind: str, *content: object) -> tuple[UID, UID]:
    """Derives the UIDs of a series and its only instance from what the document holds.

    The same content gives the same UIDs, so that an archive stores a document once however often it is written.

    Args:
        kind: What the document is, for example "SEG".
        *content: All that the document holds besides the time when it was written; an array stands for its bytes.
    """
    digest = hashlib.sha256()
    for part in (__version__, *content):
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        digest.update(b"\0")
    return derive_uid(f"{kind} series", digest.hexdigest()), derive_uid(kind, digest.hexdigest())


def _check_volume(volume: Volume, folder: Path, info: SeriesInfo) -> None:
    """Rejects volumes that a series cannot store."""
    if volume.voxels.ndim != 3:
        raise BadInput(
            f"{folder}: a series has one channel, this volume has {len(volume.voxels)}; write one series per channel"
        )
    if (info.modality == "CT") != (volume.unit == "HU"):
        raise BadInput(f"{folder}: a CT is in HU and an MR is not, this is {info.modality} in {volume.unit}")
    if not np.issubdtype(volume.voxels.dtype, np.integer):
        raise BadInput(f"{folder}: DICOM stores whole numbers, the voxels are {volume.voxels.dtype}; round them first")
    low, high = (-1024, 64511) if info.modality == "CT" else (0, 65535)
    if volume.voxels.min() < low or volume.voxels.max() > high:
        limits = f"{volume.voxels.min()} to {volume.voxels.max()}"
        raise BadInput(f"{folder}: {info.modality} is stored from {low} to {high}, the voxels are {limits}; clip them")
    axes = volume.affine[:3, :3] / volume.spacing_mm()
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-6:
        raise BadInput(f"{folder}: the axes are not at right angles, as a series needs; resample the volume first")


def _build_slice(volume: Volume, k: int, number: int, info: SeriesInfo) -> Dataset:
    """Builds the data set of one slice."""
    stored = volume.voxels[:, :, k].astype(np.int32)
    if info.modality == "CT":
        stored = stored - CT_INTERCEPT
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    attributes = CT if info.modality == "CT" else MR
    if info.localizer:
        attributes = attributes | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    attributes = attributes | _describe_series(info) | _describe_position(volume, k) | _describe_pixels(stored)
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.InstanceNumber = str(number)
    data.SOPInstanceUID = derive_uid(info.patient, info.study, info.series, str(k))
    return data


def _describe_series(info: SeriesInfo) -> dict[str, object]:
    """Returns the attributes that all slices share."""
    return {
        **dict.fromkeys(EMPTY_ATTRIBUTES, ""),
        "PatientName": f"{info.patient}^Phantom",
        "PatientID": info.patient,
        "StudyInstanceUID": derive_uid(info.patient, info.study),
        "SeriesInstanceUID": derive_uid(info.patient, info.study, info.series),
        "FrameOfReferenceUID": derive_uid(info.patient, info.study, "frame"),
        "StudyID": info.study[:16],
        "StudyDate": info.date,
        "StudyTime": "120000",
        "SeriesNumber": str(int(info.series)) if info.series.isdigit() else "",
        "SeriesDescription": info.description,
        "Modality": info.modality,
        "Manufacturer": info.manufacturer,
        "PatientPosition": "HFS",
    }


def _describe_position(volume: Volume, k: int) -> dict[str, object]:
    """Returns the position of a slice: in DICOM, i runs along a row, j down a column, and mm are LPS."""
    spacing = volume.spacing_mm()
    axes = (volume.affine[:3, :3] / spacing).T * LPS
    corner = volume.to_mm(np.array([0.0, 0.0, k])) * LPS
    return {
        "ImageOrientationPatient": _format_decimals(np.concatenate([axes[0], axes[1]])),
        "ImagePositionPatient": _format_decimals(corner),
        "PixelSpacing": _format_decimals(np.array([spacing[1], spacing[0]])),
        "SliceThickness": format_number_as_ds(spacing[2]),
    }


def _format_decimals(numbers: Float[np.ndarray, "n"]) -> list[str]:
    """Formats numbers as decimal strings (DS), without negative zeros."""
    return [format_number_as_ds(float(n) + 0.0) for n in numbers]


def _describe_pixels(stored: Integer[np.ndarray, "i j"]) -> dict[str, object]:
    """Returns the pixels of a slice and their encoding."""
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

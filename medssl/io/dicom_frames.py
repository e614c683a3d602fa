"""Frames: the slices a DICOM file holds, each with its place, its encoding and the meaning of its numbers."""

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from medssl.io.dicom_header import Header, items, numbers, text, whole
from medssl.io.dicom_layout import Layout, layout
from medssl.io.refused import Refusal

CLASSIC = {CTImageStorage: "CT", MRImageStorage: "MR", PositronEmissionTomographyImageStorage: "PT"}
MARKS = (
    "AcquisitionNumber", "EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "TriggerTime",
    "NominalPercentageOfCardiacPhase", "FrameReferenceTime", "InversionTime", "FlipAngle", "ImageType",
    "AcquisitionTime", "SeriesTime",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Who and what was imaged: equal for all slices of one series."""

    patient: str
    study: str
    series: str
    modality: str
    frame_of_reference: str


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies (mm, LPS), how it is stored, and how its numbers become values."""

    path: Path
    index: int
    origin: Origin
    layout: Layout
    position: tuple[float, float, float]
    axes: tuple[float, ...]
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    tilt_deg: float
    sop: str
    marks: tuple[tuple[str, str], ...]


def check_kind(header: Header) -> None:
    """Refuses, by name, what holds no slices of CT, MR or PET."""
    kind = text(header.data, "SOPClassUID")
    if kind == "" and "DirectoryRecordSequence" in header.data:
        raise Refusal("not-an-image", "a DICOMDIR: an index of other files, not an image")
    if kind not in CLASSIC:
        raise Refusal("not-an-image", f"{header.kind}: not a CT, MR or PET image")
    if "LOCALIZER" in text(header.data, "ImageType").upper().split("\\"):
        raise Refusal("localizer", "a localizer (scout): an overview, not part of a volume")


def frames(header: Header) -> tuple[Frame, ...]:
    """The slices of a file that holds an image."""
    return (_frame(header, 0, layout(header), origin(header)),)


def origin(header: Header) -> Origin:
    """Who and what the file belongs to."""
    data = header.data
    series, study = text(data, "SeriesInstanceUID"), text(data, "StudyInstanceUID")
    if not series or not study:
        raise Refusal("mixed", "has no series or study identifier: what it belongs to is unknown")
    frame = text(data, "FrameOfReferenceUID")
    return Origin(text(data, "PatientID"), study, series, CLASSIC[text(data, "SOPClassUID")], frame)


def _frame(header: Header, index: int, layout: Layout, origin: Origin) -> Frame:
    data = header.data
    x, y, z = _needed(data, "ImagePositionPatient", 3)
    between_rows, between_columns = _needed(data, "PixelSpacing", 2)
    slope, intercept = _rescale(data, origin.modality)
    return Frame(
        path=header.path,
        index=index,
        origin=origin,
        layout=layout,
        position=(x, y, z),
        axes=_needed(data, "ImageOrientationPatient", 6),
        pixel_mm=(between_columns, between_rows),
        slope=slope,
        intercept=intercept,
        padding=_padding(data),
        tilt_deg=(numbers(data, "GantryDetectorTilt", 1) or (0.0,))[0],
        sop=text(data, "SOPInstanceUID"),
        marks=tuple((name, text(data, name)) for name in MARKS),
    )


def _needed(data: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    try:
        given = numbers(data, keyword, count)
    except Refusal as refusal:
        raise Refusal("geometry", str(refusal)) from None
    if given is None:
        raise Refusal("geometry", f"{keyword} is missing: where the slice lies is unknown")
    return given


def _rescale(data: Dataset, modality: str) -> tuple[float, float]:
    if items(data, "ModalityLUTSequence"):
        raise Refusal("values", "its values go through a modality lookup table, which is not read")
    slope, intercept = numbers(data, "RescaleSlope", 1), numbers(data, "RescaleIntercept", 1)
    if slope is None and intercept is None and modality == "MR":
        return 1.0, 0.0
    if slope is None or intercept is None:
        raise Refusal("values", "RescaleSlope or RescaleIntercept is missing: what its numbers mean is unknown")
    if slope[0] == 0:
        raise Refusal("values", "RescaleSlope is 0: every value would be the same")
    return slope[0], intercept[0]


def _padding(data: Dataset) -> tuple[int, int] | None:
    value = whole(data, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(data, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))

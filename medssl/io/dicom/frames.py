"""Frames: the slices a DICOM file holds, each with its place, its encoding and the meaning of its numbers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from medssl.io.dicom.header import Attributes, Header, Layers, items, numbers, text, whole
from medssl.io.dicom.pixel_data.encoding import Layout, layout
from medssl.io.rejected import Refusal

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage, for which pydicom has no name yet
CLASSIC = {CTImageStorage: "CT", MRImageStorage: "MR", PositronEmissionTomographyImageStorage: "PT"}
ENHANCED = {
    EnhancedCTImageStorage: "CT",
    EnhancedMRImageStorage: "MR",
    EnhancedPETImageStorage: "PT",
    LegacyConvertedEnhancedCTImageStorage: "CT",
    LegacyConvertedEnhancedMRImageStorage: "MR",
    LegacyConvertedEnhancedPETImageStorage: "PT",
}
MODALITY = {**CLASSIC, **ENHANCED}
# What tells several volumes of one series apart, the most telling first.
MARKS = (
    "EchoTime", "EffectiveEchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier",
    "TemporalPositionIndex", "AcquisitionNumber", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "FrameReferenceTime", "InversionTime", "FlipAngle", "ImageType", "FrameType",
    "StackID", "ConvolutionKernel", "Units", "RescaleType", "AcquisitionTime", "FrameAcquisitionDateTime",
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
    position: tuple[float, ...]
    axes: tuple[float, ...]
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    tilt_deg: float
    sop: str
    marks: dict[str, str]


def check_kind(header: Header) -> None:
    """Refuses, by name, what holds no slices of CT, MR or PET."""
    kind = text(header.data, "SOPClassUID")
    if kind == "" and "DirectoryRecordSequence" in header.data:
        raise Refusal("not-an-image", "a DICOMDIR: an index of other files, not an image")
    if kind in (RTStructureSetStorage, SegmentationStorage, LABEL_MAP):
        raise Refusal("annotation", f"{header.kind}: drawn labels; they are read together with their series")
    if kind not in MODALITY:
        raise Refusal("not-an-image", f"{header.kind}: not a CT, MR or PET image")
    if "LOCALIZER" in text(header.data, "ImageType").upper().split("\\"):
        raise Refusal("localizer", "a localizer (scout): an overview, not part of a volume")


def frames(header: Header) -> tuple[Frame, ...]:
    """The slices of a file that holds an image."""
    found, whose = layout(header), _origin(header)
    if text(header.data, "SOPClassUID") in ENHANCED:
        return tuple(
            _frame(header, n, data, found, whose) for n, data in enumerate(functional_groups(header, found.frames))
        )
    if found.frames > 1:
        raise Refusal("mixed", f"{found.frames} frames in a file of the single-frame kind {header.kind}")
    return (_frame(header, 0, header.data, found, whose),)


def functional_groups(header: Header, count: int) -> Iterator[Layers]:
    """For each frame of a multi-frame file: its own attributes, over the shared ones, over the file's."""
    own = items(header.data, "PerFrameFunctionalGroupsSequence")
    if len(own) != count:
        raise Refusal("geometry", f"describes {len(own)} of its {count} frames")
    shared = _flat(items(header.data, "SharedFunctionalGroupsSequence")[:1])
    for group in own:
        yield Layers((*_flat([group]), *shared, header.data))


def _flat(groups: list[Dataset]) -> tuple[Dataset, ...]:
    """The single items of the sequences in a functional group."""
    names = ((group, keyword_for_tag(tag)) for group in groups for tag, _ in group.items())
    return tuple(item for group, name in names for item in items(group, name)[:1])


def _origin(header: Header) -> Origin:
    data = header.data
    series, study = text(data, "SeriesInstanceUID"), text(data, "StudyInstanceUID")
    if not series or not study:
        raise Refusal("mixed", "has no series or study identifier: what it belongs to is unknown")
    modality = MODALITY[text(data, "SOPClassUID")]
    return Origin(text(data, "PatientID"), study, series, modality, text(data, "FrameOfReferenceUID"))


def _frame(header: Header, index: int, data: Attributes, layout: Layout, origin: Origin) -> Frame:
    between_rows, between_columns = needed(data, "PixelSpacing", 2)
    slope, intercept = _rescale(data, origin.modality)
    return Frame(
        path=header.path,
        index=index,
        origin=origin,
        layout=layout,
        position=needed(data, "ImagePositionPatient", 3),
        axes=needed(data, "ImageOrientationPatient", 6),
        pixel_mm=(between_columns, between_rows),
        slope=slope,
        intercept=intercept,
        padding=_padding(data),
        tilt_deg=(numbers(data, "GantryDetectorTilt", 1) or (0.0,))[0],
        sop=text(data, "SOPInstanceUID"),
        marks={name: told for name in MARKS if (told := text(data, name))},
    )


def needed(data: Attributes, keyword: str, count: int) -> tuple[float, ...]:
    """The numbers that say where a slice lies."""
    try:
        given = numbers(data, keyword, count)
    except Refusal as refusal:
        raise Refusal("geometry", str(refusal)) from None
    if given is None:
        raise Refusal("geometry", f"{keyword} is missing: where the slice lies is unknown")
    if max(map(abs, given)) > 1e5:
        raise Refusal("geometry", f"{keyword} is {', '.join(f'{n:g}' for n in given)}: impossible")
    return given


def _rescale(data: Attributes, modality: str) -> tuple[float, float]:
    if items(data, "ModalityLUTSequence"):
        raise Refusal("values", "its values go through a modality lookup table, which is not read")
    slope, intercept = numbers(data, "RescaleSlope", 1), numbers(data, "RescaleIntercept", 1)
    if slope is None and intercept is None and modality == "MR":
        return 1.0, 0.0
    if slope is None or intercept is None:
        raise Refusal("values", "RescaleSlope or RescaleIntercept is missing: what its numbers mean is unknown")
    if slope[0] == 0 or not math.isfinite(slope[0] * 2**32 + intercept[0]):
        raise Refusal("values", f"RescaleSlope is {slope[0]:g}: no such scale")
    return slope[0], intercept[0]


def _padding(data: Attributes) -> tuple[int, int] | None:
    value = whole(data, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(data, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))

"""Reads the slices of a DICOM file, each with its position, its pixel encoding and its rescale."""

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

from medssl.errors import Message, join_messages, restore_message
from medssl.io.dicom.header import (
    Attributes,
    Header,
    MergedDatasets,
    get_floats,
    get_int,
    get_items,
    get_text,
)
from medssl.io.dicom.pixel_data.encoding import PixelEncoding, read_encoding
from medssl.io.dicom.pixel_data.modality_lut import ModalityLut, read_modality_lut
from medssl.io.dicom.private_tags import Tile, read_diffusion, read_slice_grid
from medssl.io.dicom.suv import PetQuantity, read_pet_quantity
from medssl.io.rejected import ReadRejected

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage, for which pydicom has no name yet
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
# The tags that distinguish several volumes of one series, the most specific first.
VOLUME_TAGS = (
    "EchoTime", "EffectiveEchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier",
    "TemporalPositionIndex", "AcquisitionNumber", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "FrameReferenceTime", "InversionTime", "FlipAngle", "ImageType", "FrameType",
    "StackID", "ConvolutionKernel", "Units", "RescaleType", "AcquisitionTime", "FrameAcquisitionDateTime",
    "DiffusionGradientOrientation", "SequenceName", "ContentTime", "SeriesDescription", "ImageComments",
)  # fmt: skip
# What to do with images of these kinds, which hold volumes but are not read.
REMEDIES = {
    "1.2.840.10008.5.1.4.1.1.20": "export the reconstructed SPECT volume as NIfTI",  # Nuclear Medicine
    "1.2.840.10008.5.1.4.1.1.13.1.1": "export the volume as CT or NIfTI",  # X-Ray 3D Angiographic
    "1.2.840.10008.5.1.4.1.1.13.1.2": "export the volume as CT or NIfTI",  # X-Ray 3D Craniofacial (CBCT)
    "1.2.840.10008.5.1.4.1.1.12.1": "projections, no volume; export the reconstructed volume as CT",  # XA
    "1.2.840.10008.5.1.4.1.1.13.1.3": "a tomosynthesis has no even resolution in depth",  # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.6.2": "export the ultrasound volume as NIfTI",  # Enhanced US Volume
}


@dataclass(frozen=True)
class SeriesKey:
    """The identifiers that all slices of a series share."""

    patient: str
    study: str
    series: str
    modality: str
    frame_of_reference: str


@dataclass(frozen=True)
class Frame:
    """One slice of a DICOM file.

    Args:
        path: The file.
        index: The number of the frame in the file, from 0.
        series_key: The identifiers of the series.
        encoding: How the stored values are encoded.
        position: The centre of the first pixel in mm, LPS.
        axes: The direction of a row and of a column, LPS.
        pixel_mm: The distance between columns and between rows.
        slope: The factor from stored values to output values.
        intercept: The offset that is added after the factor.
        padding: The lowest and the highest stored value that marks pixels outside the image.
        tilt_deg: The gantry tilt in the header.
        sop_instance: The UID of the SOP instance.
        volume_tags: The tags that can distinguish several volumes of one series.
        number: The InstanceNumber.
        num_declared: The number of slices that the header declares for the acquisition or the series.
        tile: The part of the stored frame that is the slice; None if it is the whole frame.
        lut: The modality lookup table that replaces slope and intercept.
        pet: What a PET slice states about its values; None for others.
    """

    path: Path
    index: int
    series_key: SeriesKey
    encoding: PixelEncoding
    position: tuple[float, ...]
    axes: tuple[float, ...]
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    tilt_deg: float
    sop_instance: str
    volume_tags: dict[str, str]
    number: int | None = None
    num_declared: int | None = None
    tile: Tile | None = None
    lut: ModalityLut | None = None
    pet: PetQuantity | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The number of columns and of rows."""
        part = self.tile or self.encoding
        return part.columns, part.rows


def check_kind(header: Header) -> None:
    """Rejects files without slices of CT, MR or PET; the message names their kind."""
    kind = get_text(header.data, "SOPClassUID")
    if kind == "" and "DirectoryRecordSequence" in header.data:
        raise ReadRejected("not-an-image", Message("a DICOMDIR: an index of other files, not an image"))
    if kind in (RTStructureSetStorage, SegmentationStorage, LABEL_MAP_STORAGE):
        raise ReadRejected(
            "annotation", Message("{kind}: labels; they are read together with their series", kind=header.kind)
        )
    if kind in REMEDIES:
        remedy = Message("{kind}: not a CT, MR or PET image", kind=header.kind)
        raise ReadRejected("not-an-image", join_messages([remedy, restore_message(REMEDIES[kind], REMEDIES[kind])]))
    if kind not in MODALITY:
        raise ReadRejected("not-an-image", Message("{kind}: not a CT, MR or PET image", kind=header.kind))
    if "LOCALIZER" in _read_image_type(header):
        raise ReadRejected("localizer", Message("a localizer (scout): an overview, not part of a volume"))


def read_frames(header: Header) -> tuple[Frame, ...]:
    """Returns the slices of an image file."""
    encoding, series_key = read_encoding(header), _read_series_key(header)
    if get_text(header.data, "SOPClassUID") in ENHANCED:
        return tuple(
            _build_frame(header, n, data, encoding, series_key)
            for n, data in enumerate(merge_functional_groups(header, encoding.frames))
        )
    if encoding.frames > 1:
        raise ReadRejected(
            "mixed",
            Message(
                "{frames} frames in a file of the single-frame kind {kind}; export it again as single slices",
                frames=encoding.frames,
                kind=header.kind,
            ),
        )
    if grid := read_slice_grid(header, encoding, _read_image_type(header)):
        return tuple(
            _build_frame(header, n, header.data, encoding, series_key, position, tile)
            for n, (tile, position) in enumerate(zip(grid.tiles, grid.positions, strict=True))
        )
    return (_build_frame(header, 0, header.data, encoding, series_key),)


def _read_image_type(header: Header) -> set[str]:
    """Returns the values of ImageType in capitals."""
    return set(get_text(header.data, "ImageType").upper().split("\\"))


def merge_functional_groups(header: Header, count: int) -> Iterator[MergedDatasets]:
    """Returns the attributes of each frame: its own before the shared ones before those of the file."""
    per_frame = get_items(header.data, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) != count:
        raise ReadRejected(
            "geometry", Message("describes {num_items} of its {count} frames", num_items=len(per_frame), count=count)
        )
    shared = _flatten_groups(get_items(header.data, "SharedFunctionalGroupsSequence")[:1])
    for group in per_frame:
        yield MergedDatasets((*_flatten_groups([group]), *shared, header.data))


def _flatten_groups(groups: list[Dataset]) -> tuple[Dataset, ...]:
    """Returns the single items of the sequences in functional groups."""
    names = ((group, keyword_for_tag(tag)) for group in groups for tag, _ in group.items())
    return tuple(item for group, name in names for item in get_items(group, name)[:1])


def _read_series_key(header: Header) -> SeriesKey:
    """Reads the identifiers that all slices of a series share."""
    data = header.data
    series, study = get_text(data, "SeriesInstanceUID"), get_text(data, "StudyInstanceUID")
    if not series or not study:
        raise ReadRejected("mixed", Message("has no series or study identifier, so its series is unknown"))
    modality = MODALITY[get_text(data, "SOPClassUID")]
    return SeriesKey(get_text(data, "PatientID"), study, series, modality, get_text(data, "FrameOfReferenceUID"))


def _build_frame(
    header: Header, index: int, data: Attributes, encoding: PixelEncoding, series_key: SeriesKey,
    position: tuple[float, ...] | None = None, tile: Tile | None = None,
) -> Frame:  # fmt: skip
    """Builds a slice from the attributes of its frame; position and tile are those of a slice in a grid of slices."""
    between_rows, between_columns = require_numbers(data, "PixelSpacing", 2)
    lut, lut_type = read_modality_lut(get_items(data, "ModalityLUTSequence"))
    slope, intercept = (1.0, 0.0) if lut else _read_rescale(data, series_key.modality)
    tags = {name: value for name in VOLUME_TAGS if (value := get_text(data, name))}
    if series_key.modality == "MR" and isinstance(data, Dataset):
        tags = {**read_diffusion(data), **tags}
    return Frame(
        path=header.path,
        index=index,
        series_key=series_key,
        encoding=encoding,
        position=position or require_numbers(data, "ImagePositionPatient", 3),
        axes=require_numbers(data, "ImageOrientationPatient", 6),
        pixel_mm=(between_columns, between_rows),
        slope=slope,
        intercept=intercept,
        padding=_read_padding(data),
        tilt_deg=(get_floats(data, "GantryDetectorTilt", 1) or (0.0,))[0],
        sop_instance=get_text(data, "SOPInstanceUID"),
        volume_tags={**tags, "RescaleType": lut_type} if lut else tags,
        number=_read_count(data, "InstanceNumber"),
        num_declared=_read_count(data, "ImagesInAcquisition") or _read_count(data, "NumberOfSlices"),
        tile=tile,
        lut=lut,
        pet=read_pet_quantity(data) if series_key.modality == "PT" and isinstance(data, Dataset) else None,
    )


def _read_count(data: Attributes, keyword: str) -> int | None:
    """Returns a whole number that is only used as evidence; None if it is missing or no whole number."""
    try:
        return get_int(data, keyword)
    except ReadRejected:
        return None


def require_numbers(data: Attributes, keyword: str, count: int) -> tuple[float, ...]:
    """Returns the numbers of an attribute that the position of a slice depends on; rejects it if they are missing."""
    try:
        numbers = get_floats(data, keyword, count)
    except ReadRejected as error:
        raise ReadRejected("geometry", error.message) from None
    if numbers is None:
        raise ReadRejected(
            "geometry", Message("{keyword} is missing, so the position of the slice is unknown", keyword=keyword)
        )
    if max(map(abs, numbers)) > 1e5:
        raise ReadRejected(
            "geometry",
            Message(
                "{keyword} is {values}, which is impossible",
                keyword=keyword,
                values=", ".join(f"{n:g}" for n in numbers),
            ),
        )
    return numbers


def _read_rescale(data: Attributes, modality: str) -> tuple[float, float]:
    """Returns slope and intercept; only MR may lack both."""
    slope, intercept = get_floats(data, "RescaleSlope", 1), get_floats(data, "RescaleIntercept", 1)
    if slope is None and intercept is None and modality == "MR":
        return 1.0, 0.0
    if slope is None or intercept is None:
        raise ReadRejected(
            "values",
            Message(
                "RescaleSlope or RescaleIntercept is missing, so the meaning of its values is unknown; add both "
                "(1 and 0 if the values are HU already), or convert the series to NIfTI"
            ),
        )
    if slope[0] == 0 or not math.isfinite(slope[0] * 2**32 + intercept[0]):
        raise ReadRejected(
            "values", Message("RescaleSlope is {slope}; a finite slope other than 0 is needed", slope=f"{slope[0]:g}")
        )
    return slope[0], intercept[0]


def _read_padding(data: Attributes) -> tuple[int, int] | None:
    """Returns the range of stored values that mark pixels outside the image."""
    value = get_int(data, "PixelPaddingValue")
    if value is None:
        return None
    limit = get_int(data, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))

"""Writes label maps as DICOM SEG on the slices of their series."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io.dicom import annotations
from medssl.io.dicom.derived.codes import describe_private_scheme
from medssl.io.dicom.derived.provenance import MAX_LENGTH, AlgorithmInfo, MaskOrigin, describe_series
from medssl.io.dicom.derived.structures import StructureCodes, find_structure_codes
from medssl.io.dicom.geometry.slice_geometry import TO_RAS
from medssl.io.dicom.reader import Series
from medssl.io.dicom.series_writer import derive_document_uids
from medssl.io.dicom.source_headers import choose_series_number, ignore_highdicom_warnings, read_headers
from medssl.version import __version__
from medssl.volume import Volume

Kind = Literal["BINARY", "LABELMAP"]


@dataclass(frozen=True)
class SegSegment:
    """One segment.

    Args:
        name: The label of the segment.
        structure: The name of the structure, which decides on its code.
        tracking_id: The identifier of the finding.
        tracking_uid: The UID of the finding, the same in all documents.
        colour: Red, green and blue, 0 to 255.
        origin: The tool and the person who made the mask.
    """

    name: str
    structure: str
    tracking_id: str
    tracking_uid: str
    colour: tuple[int, int, int]
    origin: MaskOrigin


def write(
    series: Series, labels: Volume, segments: Sequence[SegSegment], algorithm: AlgorithmInfo, path: Path, kind: Kind
) -> Dataset:
    """Writes a label map as a DICOM SEG on the slices of a series.

    Args:
        series: The series that the labels belong to.
        labels: The label map on the grid of the series; the label n + 1 is `segments[n]`.
        segments: The segments.
        algorithm: The model that made the labels.
        path: The file to write.
        kind: "BINARY" or "LABELMAP". A binary one is read back and compared voxel for voxel before it gets its name.

    Returns:
        The data set that was written.

    Raises:
        BadInput: If the series is irregular or lacks attributes that a SEG needs.
    """
    require_regular_grid(series)
    image = series.volume()
    labels = labels.reorient(image.orientation()).require_same_grid(image)
    segmentation = _build_segmentation(series, labels, segments, algorithm, kind)
    # highdicom leaves the SQLite table of the frames open, which Python 3.13 warns of.
    with closing(segmentation._db_con), atomic_file(path) as part:
        segmentation.save_as(part)
        if kind == "BINARY":
            _check_round_trip(part, labels, series)
    return segmentation


def require_regular_grid(series: Series) -> None:
    """Rejects a series with a resampled volume, since segments must lie on the stored slices."""
    if is_irregular(series):
        raise BadInput(
            f"its series is irregular ({'; '.join(series.grid.warnings)}): a SEG needs evenly stacked slices"
        )


def is_irregular(series: Series) -> bool:
    """Returns whether the volume of a series is resampled from its slices."""
    return series.grid.is_tilted or series.grid.slice_positions is not None


def _build_segmentation(
    series: Series, labels: Volume, segments: Sequence[SegSegment], algorithm: AlgorithmInfo, kind: Kind
) -> Segmentation:
    """Builds the data set with the headers of the series."""
    sources = read_headers(series)
    descriptions = [_describe_segment(n, segment) for n, segment in enumerate(segments, 1)]
    series_uid, uid = derive_document_uids("SEG", series.uid, labels.voxels, segments, algorithm, kind)
    content = f"SEG: {', '.join(dict.fromkeys(segment.structure for segment in segments))}"
    try:
        with ignore_highdicom_warnings():
            return Segmentation(
                sources, _to_highdicom_volume(labels, series), kind, descriptions, series_uid,
                choose_series_number(sources), uid, 1, "medssl", "medssl", __version__,
                algorithm.weights_sha256 or "unknown", content_description=algorithm.notice,
                content_label="PREDICTION", series_description=describe_series(content, algorithm.notice),
                coding_schemes=[describe_private_scheme()], omit_empty_frames=True,
            )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"its series cannot be segmented ({error})") from error


def _describe_segment(number: int, segment: SegSegment) -> SegmentDescription:
    """Describes a segment: what it is, where it lies, and who made it."""
    structure, origin = find_structure_codes(segment.structure), segment.origin
    description = SegmentDescription(
        number, segment.name, structure.category, structure.type, origin.type,
        origin.algorithm.describe_for_seg() if origin.algorithm else None,
        segment.tracking_uid, segment.tracking_id, [structure.site] if structure.site else None,
        display_color=CIELabColor.from_rgb(*segment.colour),
    )  # fmt: skip
    if origin.algorithm and origin.type != "MANUAL":
        description.SegmentAlgorithmName = origin.summary[:MAX_LENGTH]
    description.SegmentDescription = origin.summary
    _add_side(description, structure)
    return description


def _add_side(description: SegmentDescription, structure: StructureCodes) -> None:
    """Adds left or right to the organ of an abnormal structure, else to the type of the structure."""
    if structure.side is None:
        return
    side = [hd.sr.CodedConcept(*structure.side[:3])]
    if structure.site:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
    else:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side


def _to_highdicom_volume(labels: Volume, series: Series) -> hd.Volume:
    """Returns the same voxels with the axes of highdicom: slice, row, column, and mm in LPS."""
    affine = (TO_RAS @ labels.affine)[:, [2, 1, 0, 3]]
    dtype = np.uint8 if labels.voxels.max() < 256 else np.uint16
    return hd.Volume(labels.voxels.transpose(2, 1, 0).astype(dtype), affine, "PATIENT", series.frame_of_reference)


def _check_round_trip(path: Path, labels: Volume, series: Series) -> None:
    """Reads a SEG back and rejects it if a voxel differs."""
    annotation = annotations.read(path)
    if annotation.series != series.uid or not np.array_equal(annotation.volume(labels).voxels, labels.voxels):
        raise BadInput("the SEG does not read back as it was written, so this case is not exported; report this bug")

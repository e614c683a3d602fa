"""Writes label maps as RTSTRUCT: contours on the slices of their series.

A contour runs halfway between the centres of the voxels inside and outside, so that a program that fills it by the
centres of the voxels gets the same mask. A hole is joined to its contour by a channel of no width, the "keyhole" of
DICOM PS3.3, C.8.8.6.3, so that no program fills it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io.dicom import annotations
from medssl.io.dicom.derived.provenance import AlgorithmInfo, describe_series
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import SegSegment, require_regular_grid
from medssl.io.dicom.series_writer import derive_document_uids
from medssl.io.dicom.source_headers import choose_series_number, read_headers
from medssl.version import __version__
from medssl.volume import Volume

Contour = Float[np.ndarray, "_ 3"]
STUDY_KEYWORDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip


def write(
    series: Series, labels: Volume, segments: Sequence[SegSegment], algorithm: AlgorithmInfo, path: Path
) -> Dataset:
    """Writes a label map as an RTSTRUCT on the slices of a series and returns the data set.

    Args:
        series: The series that the labels belong to.
        labels: The label map on the grid of the series; the label n + 1 is `segments[n]`.
        segments: The structures.
        algorithm: The tool that made the labels.
        path: The file to write. It is read back and compared voxel for voxel before it gets its name.

    Raises:
        BadInput: If the series is irregular or has no frame of reference.
    """
    require_regular_grid(series)
    image = series.volume()
    labels = labels.reorient(image.orientation()).require_same_grid(image)
    sources = read_headers(series)
    if not series.frame_of_reference:
        raise BadInput("its series has no Frame Of Reference, which an RTSTRUCT needs")
    uids = derive_document_uids("RTSTRUCT", series.uid, labels.voxels, segments, algorithm)
    data = _build_header(series, sources, segments, algorithm, uids)
    instances = _list_instances(series, sources)
    for number, segment in enumerate(segments, 1):
        contours = list(_trace_contours(labels, number))
        _add_structure(data, number, segment, contours, instances, series.frame_of_reference)
    with atomic_file(path) as part:
        dcmwrite(part, data, enforce_file_format=True)
        _check_round_trip(part, labels, series)
    return data


def _build_header(
    series: Series, sources: Sequence[Dataset], segments: Sequence[SegSegment], algorithm: AlgorithmInfo,
    uids: tuple[UID, UID],
) -> Dataset:  # fmt: skip
    """Returns the data set without structures: patient, study, equipment and the slices that are drawn on."""
    data, now = Dataset(), datetime.now(UTC)
    for keyword in STUDY_KEYWORDS:
        setattr(data, keyword, sources[0].get(keyword, ""))
    names = ", ".join(dict.fromkeys(segment.structure for segment in segments))
    data.SpecificCharacterSet, data.Modality = "ISO_IR 192", "RTSTRUCT"
    data.SOPClassUID, (data.SeriesInstanceUID, data.SOPInstanceUID) = RTStructureSetStorage, uids
    data.SeriesNumber, data.InstanceNumber = choose_series_number(sources) + 2, 1
    data.SeriesDescription = describe_series(f"RTSTRUCT: {names}", algorithm.notice)
    data.OperatorsName = ""
    data.Manufacturer = data.ManufacturerModelName = "medssl"
    data.SoftwareVersions = __version__
    data.StructureSetLabel, data.StructureSetName = "PREDICTION", "reviewed prediction"
    data.StructureSetDescription = algorithm.notice
    data.StructureSetDate = data.InstanceCreationDate = now.strftime("%Y%m%d")
    data.StructureSetTime = data.InstanceCreationTime = now.strftime("%H%M%S")
    data.ApprovalStatus = "UNAPPROVED"
    frame, study, reference = Dataset(), Dataset(), Dataset()
    reference.SeriesInstanceUID = series.uid
    reference.ContourImageSequence = [_refer_to(source) for source in sources]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", series.study
    study.RTReferencedSeriesSequence = [reference]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = series.frame_of_reference, [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _add_structure(
    data: Dataset, number: int, segment: SegSegment, contours: Sequence[tuple[int, Contour]],
    instances: Sequence[Dataset], frame_of_reference: str,
) -> None:  # fmt: skip
    """Adds one structure with its contours, and who made them."""
    roi, drawing, observation = Dataset(), Dataset(), Dataset()
    roi.ROINumber = drawing.ReferencedROINumber = observation.ReferencedROINumber = number
    roi.ReferencedFrameOfReferenceUID, roi.ROIName = frame_of_reference, segment.name
    roi.ROIGenerationAlgorithm, roi.ROIGenerationDescription = segment.origin.type, segment.origin.summary[:64]
    drawing.ROIDisplayColor = list(segment.colour)
    drawing.ContourSequence = []
    for k, points in contours:
        contour = Dataset()
        contour.ContourImageSequence = [instances[k]]
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        contour.ContourData = [f"{mm:.4f}" for mm in (points * (-1, -1, 1)).ravel()]  # RAS+ to LPS+
        drawing.ContourSequence.append(contour)
    observation.ObservationNumber, observation.RTROIInterpretedType, observation.ROIInterpreter = number, "", ""
    data.StructureSetROISequence.append(roi)
    data.ROIContourSequence.append(drawing)
    data.RTROIObservationsSequence.append(observation)


def _trace_contours(labels: Volume, number: int) -> Iterator[tuple[int, Contour]]:
    """Yields the slice and the points in mm (RAS+) of each contour of a label."""
    inside = labels.voxels == number
    for k in np.flatnonzero(inside.any((0, 1))):
        for ij in _trace_slice(inside[:, :, k]):
            yield int(k), labels.to_mm(np.column_stack([ij, np.full(len(ij), float(k))]))


def _trace_slice(inside: Bool[np.ndarray, "i j"]) -> list[Float[np.ndarray, "n 2"]]:
    """Returns the contours of a mask as voxel indices; each runs around its holes too and does not repeat a point."""
    padded = np.pad(inside, 1).astype(float)
    polygons: Any = contourpy.contour_generator(z=padded.T, fill_type="OuterOffset").filled(0.5, 2.0)
    contours = []
    for polygon, starts in zip(*polygons, strict=True):
        rings = [np.asarray(polygon[a : b - 1], float) - 1 for a, b in pairwise(starts)]
        contours.append(reduce(_join_hole, rings))
    return contours


def _join_hole(ring: Float[np.ndarray, "n 2"], hole: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "k 2"]:
    """Returns a ring that runs to the nearest point of the hole, around the hole, and back the same way."""
    distance = np.linalg.norm(ring[:, None] - hole[None], axis=-1)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    return np.concatenate([ring[: i + 1], hole[j:], hole[: j + 1], ring[i:]])


def _list_instances(series: Series, sources: Sequence[Dataset]) -> list[Dataset]:
    """Returns a reference to each slice, in the order of the volume; that of a multi-frame file names the frame."""
    by_path = dict(zip(series.files, sources, strict=True))
    instances = []
    for n in series.grid.order:
        instances.append(_refer_to(by_path[series.frames[n].path]))
        if len(sources) < len(series.frames):
            instances[-1].ReferencedFrameNumber = series.frames[n].index + 1
    return instances


def _refer_to(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return reference


def _check_round_trip(path: Path, labels: Volume, series: Series) -> None:
    """Reads an RTSTRUCT back and rejects it if a voxel differs."""
    annotation = annotations.read(path)
    if annotation.series != series.uid or not np.array_equal(annotation.volume(labels).voxels, labels.voxels):
        raise BadInput("the RTSTRUCT does not read back as it was written; report this bug")

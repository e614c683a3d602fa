"""Writes measurements and verdicts as DICOM SR, after TID 1500 "Measurement Report".

DICOM PS3.16, annex A, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from highdicom.sr import (
    Comprehensive3DSR,
    CoordinatesForMeasurement3D,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DT

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io.dicom.derived import codes as dicom_codes
from medssl.io.dicom.derived.provenance import MAX_LENGTH, AlgorithmInfo, MaskOrigin, describe_series
from medssl.io.dicom.derived.structures import PRIVATE_SCHEME, find_structure_codes, make_private_code
from medssl.io.dicom.reader import Series
from medssl.io.dicom.series_writer import derive_document_uids, derive_uid
from medssl.io.dicom.source_headers import choose_series_number, ignore_highdicom_warnings, read_headers
from medssl.version import __version__

Ends: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]
FindingGroup: TypeAlias = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
AXES = (codes.SCT.LongAxis, codes.SCT.ShortAxis)
PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}


@dataclass(frozen=True)
class SrFinding:
    """One finding of a report.

    Args:
        tracking_id: The identifier of the finding.
        tracking_uid: The UID of the finding, the same in all documents.
        structure: The name of the structure, which decides on its code.
        decision: The decision of the reviewer; empty if the finding was not reviewed.
        segment: The number of its segment in the SEG; None if no voxel is left.
        volume_ml: The volume in ml.
        diameter_mm: The largest diameter in mm.
        origin: The tool and the person who made the outline; None if there is no outline.
        axes: The ends of the long and of the short axis that a reviewer measured in a plane, in mm, RAS+.
        mask_axes_mm: The long and the short axis of the outline in an axial plane in mm, which the report states where
            no reviewer measured any.
        reason: The reason of the decision.
        note: The comment of the reviewer.
    """

    tracking_id: str
    tracking_uid: str
    structure: str
    decision: str
    segment: int | None
    volume_ml: float
    diameter_mm: float
    origin: MaskOrigin | None = None
    axes: tuple[Ends, Ends] | None = None
    reason: str = ""
    note: str = ""
    mask_axes_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class SrReviewer:
    """The reviewer of a report; only a signed report is VERIFIED.

    Args:
        name: The login or the name.
        organization: The organization of the reviewer.
        signed_at: The time of the signature as a clinician (UTC, ISO 8601); None without a signature.
        role: The role of the reviewer.
    """

    name: str = ""
    organization: str = ""
    signed_at: str | None = None
    role: str = ""


def write(
    series: Series,
    seg: Dataset | None,
    findings: Sequence[SrFinding],
    algorithm: AlgorithmInfo,
    reviewer: SrReviewer,
    path: Path,
) -> Dataset:
    """Writes a report on the findings of a series.

    Args:
        series: The series.
        seg: The SEG with the segments of the findings; None if there is none.
        findings: The findings; without any, the report states that there are none.
        algorithm: The model that made the findings.
        reviewer: The reviewer.
        path: The file to write.

    Returns:
        The data set that was written.
    """
    sources = read_headers(series)
    groups = [
        group for finding in findings or [_make_empty_finding(series)] for group in _build_groups(finding, seg, series)
    ]
    content = MeasurementReport(_build_context(algorithm, reviewer), PROCEDURES[series.modality], groups)
    evidence = [*sources, *([] if seg is None else [seg])]
    is_signed = bool(reviewer.signed_at)
    series_uid, uid = derive_document_uids(
        "SR", series.uid, seg and str(seg.SOPInstanceUID), findings, algorithm, reviewer
    )
    try:
        with ignore_highdicom_warnings():
            report = Comprehensive3DSR(
                evidence, content[0], series_uid, choose_series_number(sources) + 1, uid, 1, "medssl",
                is_complete=is_signed, is_verified=is_signed,
                verifying_observer_name=format_person_name(reviewer.name) if is_signed else None,
                verifying_organization=(reviewer.organization or "not specified") if is_signed else None,
                series_description=describe_series(_summarize(findings, is_signed), algorithm.notice),
                manufacturer_model_name="medssl", software_versions=__version__,
                coding_schemes=[dicom_codes.describe_private_scheme()],
            )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"its series cannot be reported ({error})") from error
    if reviewer.signed_at:
        report.VerifyingObserverSequence[0].VerificationDateTime = DT(datetime.fromisoformat(reviewer.signed_at))
    with atomic_file(path) as part:
        report.save_as(part)
    return report


def format_person_name(name: str) -> str:
    """Returns a login or a name as a DICOM person name, family name first."""
    return name if "^" in name else f"{name}^"


def _summarize(findings: Sequence[SrFinding], is_signed: bool) -> str:
    """Returns what a report holds, in a few words."""
    return f"SR: {len(findings)} finding{'s' * (len(findings) != 1)}, {'signed' if is_signed else 'not signed'}"


def _build_context(algorithm: AlgorithmInfo, reviewer: SrReviewer) -> ObservationContext:
    """Names the tool and the reviewer as observers."""
    device = DeviceObserverIdentifyingAttributes(
        derive_uid("model", algorithm.weights_sha256 or algorithm.summary), name=algorithm.name,
        manufacturer_name="medssl" if algorithm.weights_sha256 else None, model_name=algorithm.version,
        serial_number=algorithm.weights_sha256 or None,
    )  # fmt: skip
    person = None
    if reviewer.name:
        role = make_private_code(reviewer.role) if reviewer.role else None
        identity = PersonObserverIdentifyingAttributes(
            format_person_name(reviewer.name),
            organization_name=reviewer.organization or None,
            role_in_organization=role,
        )
        person = ObserverContext(codes.DCM.Person, identity)
    return ObservationContext(person, ObserverContext(codes.DCM.Device, device))


def _make_empty_finding(series: Series) -> SrFinding:
    """Returns the entry of a report without findings, since a report may not be empty."""
    return SrFinding("whole series", derive_uid("nothing", series.uid), "Normal", "nothing", None, 0.0, 0.0)


def _build_groups(finding: SrFinding, seg: Dataset | None, series: Series) -> Iterator[FindingGroup]:
    """Yields the groups of a finding: that of its segment, and that of the axes, whose ends have coordinates.

    TID 1411 allows no coordinates for the measurements of a segment, so measured axes are a group of TID 1501 with the
    same tracking UID. A finding without a segment has a single group.
    """
    content = _describe_finding(finding)
    evaluations = [QualitativeEvaluation(name, value) for name, value in _list_evaluations(finding)]
    sizes, axes = list(_list_sizes(finding)), list(_list_axes(finding, series.frame_of_reference))
    if finding.segment is None or seg is None:
        group: FindingGroup = MeasurementsAndQualitativeEvaluations(
            **content, measurements=[*sizes, *axes] or None, qualitative_evaluations=evaluations
        )
        axes = []
    else:
        segment = ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, finding.segment, source_series=SourceSeriesForSegmentation(series.uid)
        )
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            **content, measurements=sizes or None, qualitative_evaluations=evaluations, referenced_segment=segment
        )
    if finding.note:
        comment = TextContentItem(codes.DCM.Comment, finding.note, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
    yield group
    if axes:
        yield MeasurementsAndQualitativeEvaluations(**content | {"algorithm_id": None}, measurements=axes)


def _describe_finding(finding: SrFinding) -> dict[str, Any]:
    """Returns what all groups of a finding state: its identity, its type, where it lies, and the tool."""
    structure, algorithm = find_structure_codes(finding.structure), finding.origin and finding.origin.algorithm
    place = structure.site or (structure.type if structure.side else None)
    return {
        "tracking_identifier": TrackingIdentifier(finding.tracking_uid, finding.tracking_id),
        "finding_category": structure.category,
        "finding_type": structure.type,
        "finding_sites": [FindingSite(place, structure.side)] if place else None,
        "algorithm_id": algorithm.describe_for_sr() if algorithm else None,
    }


def _list_sizes(finding: SrFinding) -> Iterator[Measurement]:
    """Yields the sizes of the mask, if voxels are left."""
    if finding.volume_ml:
        yield Measurement(codes.SCT.Volume, finding.volume_ml, dicom_codes.MILLILITRE)
        yield Measurement(dicom_codes.MAX_DIAMETER, finding.diameter_mm, codes.UCUM.Millimeter)
        if finding.mask_axes_mm and not finding.axes:
            for name, length_mm in zip(AXES, finding.mask_axes_mm, strict=True):
                yield Measurement(name, length_mm, codes.UCUM.Millimeter)


def _list_axes(finding: SrFinding, frame_of_reference: str) -> Iterator[Measurement]:
    """Yields the axes that a reviewer measured, each as a line in the patient that a viewer can draw."""
    for name, ends in zip(AXES, finding.axes or (), strict=False):
        points = np.array(ends) * (-1.0, -1.0, 1.0)  # RAS+ to LPS+
        line = CoordinatesForMeasurement3D("POLYLINE", points, frame_of_reference)
        yield Measurement(name, math.dist(*ends), codes.UCUM.Millimeter, referenced_coordinates=[line])


def _list_evaluations(finding: SrFinding) -> Iterator[tuple[Code, Code]]:
    """Yields the verdict, its reason and who made the outline."""
    yield dicom_codes.VERDICT, dicom_codes.make_verdict_code(finding.decision)
    if finding.reason:
        yield dicom_codes.REASON, make_private_code(finding.reason)
    if finding.origin:
        origin = finding.origin
        yield dicom_codes.OUTLINE, Code(origin.type, PRIVATE_SCHEME, origin.summary[:MAX_LENGTH])

"""Writes measurements and verdicts as DICOM SR, after TID 1500 "Measurement Report".

DICOM PS3.16, annex A, https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_A.html.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import highdicom as hd
from highdicom.sr import (
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
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
from medssl.io.dicom import codes as dicom_codes
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import AlgorithmInfo
from medssl.io.dicom.series_writer import derive_uid
from medssl.io.dicom.source_headers import choose_series_number, ignore_highdicom_warnings, read_headers

FindingGroup: TypeAlias = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
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
        axes_mm: The long and the short axis in mm that a reviewer measured in a plane.
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
    axes_mm: tuple[float, float] | None = None
    reason: str = ""
    note: str = ""


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
    groups = [_build_group(finding, seg, series) for finding in findings or [_make_empty_finding(series)]]
    content = MeasurementReport(_build_context(algorithm, reviewer), PROCEDURES[series.modality], groups)
    evidence = [*sources, *([] if seg is None else [seg])]
    is_signed = bool(reviewer.signed_at)
    try:
        with ignore_highdicom_warnings():
            report = Comprehensive3DSR(
                evidence, content[0], hd.UID(), choose_series_number(sources) + 1, hd.UID(), 1, "medssl",
                is_complete=is_signed, is_verified=is_signed,
                verifying_observer_name=format_person_name(reviewer.name) if is_signed else None,
                verifying_organization=(reviewer.organization or "not specified") if is_signed else None,
                series_description=algorithm.notice, manufacturer_model_name="medssl",
                software_versions=algorithm.version, coding_schemes=[dicom_codes.describe_private_scheme()],
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


def _build_context(algorithm: AlgorithmInfo, reviewer: SrReviewer) -> ObservationContext:
    """Names the model and the reviewer as observers."""
    device = DeviceObserverIdentifyingAttributes(
        derive_uid("model", algorithm.weights_sha256), name="medssl", manufacturer_name="medssl",
        model_name=algorithm.version, serial_number=algorithm.weights_sha256 or None,
    )  # fmt: skip
    person = None
    if reviewer.name:
        role = dicom_codes.make_private_code(reviewer.role) if reviewer.role else None
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


def _build_group(finding: SrFinding, seg: Dataset | None, series: Series) -> FindingGroup:
    """Returns the measurements of a finding, with a reference to its segment if it has one."""
    content = {
        "tracking_identifier": TrackingIdentifier(finding.tracking_uid, finding.tracking_id),
        "finding_type": dicom_codes.find_structure_codes(finding.structure)[1],
        "measurements": list(_list_measurements(finding)) or None,
        "qualitative_evaluations": [QualitativeEvaluation(name, value) for name, value in _list_evaluations(finding)],
    }
    if finding.segment is None or seg is None:
        group: FindingGroup = MeasurementsAndQualitativeEvaluations(**content)
    else:
        segment = ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, finding.segment, source_series=SourceSeriesForSegmentation(series.uid)
        )
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(**content, referenced_segment=segment)
    if finding.note:
        comment = TextContentItem(codes.DCM.Comment, finding.note, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
    return group


def _list_measurements(finding: SrFinding) -> Iterator[Measurement]:
    """Yields the sizes of the mask, if voxels are left, and the axes that a reviewer measured."""
    millimetre = codes.UCUM.Millimeter
    if finding.volume_ml:
        yield Measurement(codes.SCT.Volume, finding.volume_ml, dicom_codes.MILLILITRE)
        yield Measurement(dicom_codes.MAX_DIAMETER, finding.diameter_mm, millimetre)
    if finding.axes_mm:
        long_mm, short_mm = finding.axes_mm
        yield Measurement(codes.SCT.LongAxis, long_mm, millimetre)
        yield Measurement(codes.SCT.ShortAxis, short_mm, millimetre)


def _list_evaluations(finding: SrFinding) -> Iterator[tuple[Code, Code]]:
    """Yields the verdict and its reason."""
    yield dicom_codes.VERDICT, dicom_codes.make_verdict_code(finding.decision)
    if finding.reason:
        yield dicom_codes.REASON, dicom_codes.make_private_code(finding.reason)

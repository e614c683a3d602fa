"""DICOM SR: what was measured and what a reviewer said of each segment, after TID 1500 "Measurement Report".

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
from medssl.files import atomic
from medssl.io.dicom import codes as terms
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import Maker
from medssl.io.dicom.series_writer import uid
from medssl.io.dicom.source_headers import headers, next_number, quiet

Group: TypeAlias = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}


@dataclass(frozen=True)
class Measured:
    """A finding: its UID over all documents, its segment (None where no voxel is left), its sizes, its verdict and why.

    `axes_mm` are the long and the short diameter that a reader measured in a plane.
    """

    tracking_id: str
    tracking_uid: str
    what: str
    decision: str
    segment: int | None
    volume_ml: float
    diameter_mm: float
    axes_mm: tuple[float, float] | None = None
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Reviewer:
    """Who reviewed, for whom, and when (UTC, ISO 8601) they signed as a clinician; only then is a report VERIFIED."""

    name: str = ""
    organization: str = ""
    signed_at: str | None = None
    role: str = ""


def write(
    series: Series, seg: Dataset | None, findings: Sequence[Measured], maker: Maker, reviewer: Reviewer, path: Path
) -> Dataset:
    """Writes the report on a series and on the segments found in it, and gives what was written."""
    sources = headers(series)
    groups = [_group(finding, seg, series) for finding in findings or [_nothing(series)]]
    content = MeasurementReport(_context(maker, reviewer), PROCEDURES[series.modality], groups)
    evidence = [*sources, *([] if seg is None else [seg])]
    signed = bool(reviewer.signed_at)
    try:
        with quiet():
            made = Comprehensive3DSR(
                evidence, content[0], hd.UID(), next_number(sources) + 1, hd.UID(), 1, "medssl", is_complete=signed,
                is_verified=signed, verifying_observer_name=person(reviewer.name) if signed else None,
                verifying_organization=(reviewer.organization or "not told") if signed else None,
                series_description=maker.notice, manufacturer_model_name="medssl", software_versions=maker.version,
                coding_schemes=[terms.scheme()],
            )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"no report can be made of its series ({error})") from error
    if reviewer.signed_at:
        made.VerifyingObserverSequence[0].VerificationDateTime = DT(datetime.fromisoformat(reviewer.signed_at))
    with atomic(path) as part:
        made.save_as(part)
    return made


def person(name: str) -> str:
    """A login or a written name as a DICOM person name, family name first."""
    return name if "^" in name else f"{name}^"


def _context(maker: Maker, reviewer: Reviewer) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid("model", maker.weights_sha256), name="medssl", manufacturer_name="medssl", model_name=maker.version,
        serial_number=maker.weights_sha256 or None,
    )  # fmt: skip
    human = None
    if reviewer.name:
        role = terms.own(reviewer.role) if reviewer.role else None
        named = PersonObserverIdentifyingAttributes(
            person(reviewer.name), organization_name=reviewer.organization or None, role_in_organization=role
        )
        human = ObserverContext(codes.DCM.Person, named)
    return ObservationContext(human, ObserverContext(codes.DCM.Device, device))


def _nothing(series: Series) -> Measured:
    """What a report says that has no finding to report, as it may not be empty."""
    return Measured("whole series", uid("nothing", series.uid), "Normal", "nothing", None, 0.0, 0.0)


def _group(finding: Measured, seg: Dataset | None, series: Series) -> Group:
    """Of a finding that has voxels: a group that points to its segment; of any other, a group without a region."""
    said = {
        "tracking_identifier": TrackingIdentifier(finding.tracking_uid, finding.tracking_id),
        "finding_type": terms.what(finding.what)[1],
        "measurements": list(_sizes(finding)) or None,
        "qualitative_evaluations": [QualitativeEvaluation(name, value) for name, value in _evaluations(finding)],
    }
    if finding.segment is None or seg is None:
        group: Group = MeasurementsAndQualitativeEvaluations(**said)
    else:
        place = ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, finding.segment, source_series=SourceSeriesForSegmentation(series.uid)
        )
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(**said, referenced_segment=place)
    if finding.note:
        comment = TextContentItem(codes.DCM.Comment, finding.note, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
    return group


def _sizes(finding: Measured) -> Iterator[Measurement]:
    """Those of the mask where voxels are left, then those that a reader measured."""
    millimetre = codes.UCUM.Millimeter
    if finding.volume_ml:
        yield Measurement(codes.SCT.Volume, finding.volume_ml, terms.MILLILITRE)
        yield Measurement(terms.LONGEST, finding.diameter_mm, millimetre)
    if finding.axes_mm:
        long_mm, short_mm = finding.axes_mm
        yield Measurement(codes.SCT.LongAxis, long_mm, millimetre)
        yield Measurement(codes.SCT.ShortAxis, short_mm, millimetre)


def _evaluations(finding: Measured) -> Iterator[tuple[Code, Code]]:
    yield terms.VERDICT, terms.verdict(finding.decision)
    if finding.reason:
        yield terms.REASON, terms.own(finding.reason)

"""Exports reviewed predictions as DICOM SEG and SR, as PDF reports and as a CSV table."""

import io
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from medssl.errors import BadInput
from medssl.export.findings_table import FindingRow, build_row, write_table
from medssl.export.origins import describe_algorithm, find_origin
from medssl.export.pdf_summary import build_report
from medssl.export.prior_comparison import compare_with_prior
from medssl.export.reviewed_findings import ReviewedCase, ReviewedFinding, load_reviewed_case
from medssl.export.source_series import find_source_series, read_all_series
from medssl.files import atomic_file, atomic_folder, read_checksums, write_json
from medssl.finding import Finding
from medssl.io import nifti
from medssl.io.dicom import seg_writer, sr_writer
from medssl.io.dicom.derived import rtstruct_writer
from medssl.io.dicom.derived.provenance import MaskOrigin
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import Kind, SegSegment
from medssl.io.dicom.series_writer import derive_uid
from medssl.io.dicom.sr_writer import SrFinding, SrReviewer
from medssl.predictions_folder import IMAGE, LABELS, NOTICE, Index
from medssl.render import pdf
from medssl.render.figures import encode_png
from medssl.render.montage import add_caption, contact_sheet
from medssl.review.access.reviewers import Reviewer
from medssl.review.consensus.reading_of_record import select_reading_of_record
from medssl.review.event import Event
from medssl.review.event_store import EventStore, record_act
from medssl.review.reading import ActRejected
from medssl.volume import Unit, Volume

SEG, SR, RTSTRUCT, PDF, TABLE = "seg.dcm", "sr.dcm", "rtstruct.dcm", "report.pdf", "findings.csv"
MONTAGE, FINDINGS = "montage.png", "findings.json"
VERIFYING_ROLES = ("reader", "senior")


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Args:
        dicom: The folder of the DICOM files of the predicted scans; None exports no DICOM SEG and SR.
        include_unsigned: Whether to export cases that no reader has signed; their reports are not verified.
        seg_kind: The DICOM segmentation type. LABELMAP is smaller, but fewer programs read it.
        organization: The organization of the reviewer, for the SR and the PDF; empty if it is not given.
        include_notes: Whether to export the free text of the readers.
        cases: The cases to export; empty exports all.
        include_rtstruct: Whether to export the outlines as an RTSTRUCT too, for radiotherapy.
        is_one_page: Whether the PDF has one page, with the first findings only.
    """

    dicom: Path | None = None
    include_unsigned: bool = False
    seg_kind: Kind = "BINARY"
    organization: str = ""
    include_notes: bool = True
    cases: tuple[str, ...] = ()
    include_rtstruct: bool = False
    is_one_page: bool = False


@dataclass(frozen=True)
class CaseExport:
    """The result for one case: the reason why it was not exported, empty if it was."""

    case: str
    reason: str = ""


def export_review(
    index: Index,
    store: EventStore,
    out: Path,
    options: ExportOptions,
    reviewer: Reviewer | None = None,
    send: Callable[[Iterable[Path]], object] | None = None,
) -> list[CaseExport]:
    """Writes a folder for each case and a table of all findings, whole or not at all.

    Args:
        index: The reviewed predictions.
        store: The event log of the review.
        out: The folder to write, which must not exist.
        options: What to export.
        reviewer: The person who exports. The export of each case is recorded as an event of this person; None records
            nothing.
        send: Sends the files to another system, before the export is recorded; if it fails, nothing is written.

    Raises:
        BadInput: If no case can be exported, the event log is damaged or the export cannot be recorded.
    """
    results, rows = [], []
    with atomic_folder(out, is_private=True) as folder:
        if faults := store.find_faults():
            raise BadInput(
                f"{store.name}: the record of the verdicts is damaged ({faults[0]}); see `medssl audit verify`"
            )
        series = read_all_series(options.dicom) if options.dicom else None
        events = store.read_events()
        for case in options.cases or index.cases:
            try:
                rows += CaseExporter(index, case, events, options).write(folder / case, series)
                results.append(CaseExport(case))
            except BadInput as error:
                shutil.rmtree(folder / case, ignore_errors=True)  # leaves no partial export of a case
                results.append(CaseExport(case, str(error)))
        if all(result.reason for result in results):
            reasons = "; ".join(sorted({result.reason for result in results}))
            raise BadInput(f"{index.folder}: no case can be exported ({reasons})")
        write_table(folder / TABLE, rows)
        if send:
            send(folder.rglob("*"))
        if reviewer:
            _record_exports(index, store, reviewer, [result.case for result in results if not result.reason])
    return results


def export_archive(index: Index, store: EventStore, case: str, options: ExportOptions) -> bytes:
    """Returns a ZIP file of the documents and the table of one case; raises BadInput if it cannot be exported."""
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        out = Path(folder) / "export"
        export_review(index, store, out, replace(options, cases=(case,)))
        for path in sorted(out.rglob("*.*")):
            file.write(path, path.relative_to(out))
    return archive.getvalue()


def _record_exports(index: Index, store: EventStore, reviewer: Reviewer, cases: Sequence[str]) -> None:
    session = uuid.uuid4().hex
    try:
        for number, case in enumerate(cases, 1):
            record_act(store, index, reviewer, case, "deliver", session=session, number=number)
    except ActRejected as error:
        raise BadInput(f"{store.name}: {error}") from None


def describe_prediction(index: Index, case: str) -> dict[str, str]:
    """Returns what identifies a prediction: the model, the time and the hash of its labels; empty if not recorded."""
    labels = read_checksums(index.folder).get(f"{case}/{LABELS}", "")
    return {"weights_sha256": index.weights_sha256, "created": index.created, "labels_sha256": labels}


class CaseExporter:
    """Writes the documents of one case from its reading of record, or from the prediction itself if it was not read."""

    def __init__(self, index: Index, name: str, events: Sequence[Event], options: ExportOptions) -> None:
        self.index, self.name, self.events, self.options = index, name, events, options
        self.reading = select_reading_of_record(index, name, events, options.include_unsigned)
        own_events = [e for e in events if (e.case, e.reviewer) == (name, self.reading.reviewer)]
        if self.reading.signed_at:
            own_events = [e for e in own_events if e.action == ("consensus" if self.reading.authors else "sign")]
        role = own_events[-1].role if own_events else ""
        signed_at = self.reading.signed_at if role in VERIFYING_ROLES else None
        self.reviewer = SrReviewer(self.reading.reviewer, options.organization, signed_at, role)
        self.head = events[-1].hash if events else ""
        self.algorithm = describe_algorithm(index)

    def write(self, folder: Path, series: Sequence[Series] | None) -> list[FindingRow]:
        """Writes the documents of the case and returns its rows of the table.

        Args:
            folder: The folder of the documents, which is created.
            series: The DICOM series, of which one is the case; None writes no DICOM documents.

        Raises:
            BadInput: If none of the series is the case, or its series cannot be segmented.
        """
        unit: Unit = TypeAdapter(Unit).validate_python(self.index.units[self.name])
        image = replace(nifti.read(self.index.case_folder(self.name) / IMAGE), unit=unit)
        case = load_reviewed_case(self.index, self.name, self.reading)
        case.labels.require_same_grid(image.reorient("RAS"))
        source = None if series is None else find_source_series(self.name, image, series)
        if source:
            seg_writer.require_regular_grid(source)
        folder.mkdir(parents=True, exist_ok=True)
        comparison = compare_with_prior(self.index, self.name, case.items, self.events)
        notes = self.options.include_notes
        rows = [build_row(item, comparison, notes, self._build_origin(item, source)) for item in case.items]
        if source:
            self._write_dicom(folder, source, case, rows)
        report = build_report(
            self.index, image, case, self.reading, self.reviewer, rows, self.head, comparison, self.options.is_one_page
        )
        pdf.write(report, folder / PDF)
        self._write_montage(folder, image, case)
        facts = {"case": self.name, "prediction": describe_prediction(self.index, self.name), "notice": NOTICE}
        write_json(folder / FINDINGS, facts | {"findings": rows})
        return rows

    def _write_montage(self, folder: Path, image: Volume, case: ReviewedCase) -> None:
        """Writes axial planes with the outlines of all findings; the largest lesions are cut through their centres."""
        findings = [item.finding for item in case.items if item.number]
        findings.sort(key=lambda finding: (finding.kind == "organ", -finding.volume_ml))
        picture = contact_sheet(
            image.reorient("RAS"), case.labels, points_mm=[finding.centre_mm for finding in findings]
        )
        with atomic_file(folder / MONTAGE, is_private=True) as part:
            part.write_bytes(encode_png(add_caption(picture, NOTICE)))

    def _write_dicom(self, folder: Path, source: Series, case: ReviewedCase, rows: Sequence[FindingRow]) -> None:
        segments, seg = list(self._list_segments(case, rows)), None
        if segments:
            kind = self.options.seg_kind
            seg = seg_writer.write(source, case.parts, segments, self.algorithm, folder / SEG, kind)
            if self.options.include_rtstruct:
                rtstruct_writer.write(source, case.parts, segments, self.algorithm, folder / RTSTRUCT)
        findings = [
            SrFinding(
                row["finding"], row["tracking_uid"], row["name"], row["verdict"], item.number, item.finding.volume_ml,
                item.finding.diameter_mm, self._find_origin(item),
                (item.axes.long, item.axes.short) if item.axes else None, row["reason"], row["note"],
                _get_mask_axes(item.finding),
            )
            for item, row in zip(case.items, rows, strict=True)
        ]  # fmt: skip
        sr_writer.write(source, seg, findings, self.algorithm, self.reviewer, folder / SR)

    def _list_segments(self, case: ReviewedCase, rows: Sequence[FindingRow]) -> Iterator[SegSegment]:
        colours = {label.value: bytes.fromhex(label.colour[1:]) for label in self.index.labels}
        for item, row in zip(case.items, rows, strict=True):
            if origin := self._find_origin(item):
                finding = item.finding
                red, green, blue = colours.get(finding.label, b"\xff\xb0\x3b")
                name = f"{finding.name[:56]} {item.number}"
                uid = row["tracking_uid"]
                yield SegSegment(name, finding.name, finding.id, uid, (red, green, blue), origin)

    def _find_origin(self, item: ReviewedFinding) -> MaskOrigin | None:
        author = self.reading.find_author(item.finding.id)
        return find_origin(item, self.algorithm, author, self.reading.strokes)

    def _build_origin(self, item: ReviewedFinding, source: Series | None) -> FindingRow:
        """Returns the columns that name the reviewer and link a finding to its documents and to the event log."""
        weights, outline = self.index.weights_sha256, self._find_origin(item)
        return {
            "reviewer": self.reviewer.name, "role": self.reviewer.role, "signed_at": self.reading.signed_at or "",
            "meaning": self.reading.meaning, "outline_by": outline.summary if outline else "",
            "outline_type": outline.type if outline else "",
            "tracking_uid": str(derive_uid("finding", source.uid, weights, item.finding.id)) if source else "",
            "weights_sha256": weights, "record_sha256": self.head,
        }  # fmt: skip


def _get_mask_axes(finding: Finding) -> tuple[float, float] | None:
    """Returns the axial axes of the mask; None in predictions of earlier versions."""
    axes = (finding.long_axis_mm, finding.short_axis_mm)
    return None if axes[0] is None or axes[1] is None else (axes[0], axes[1])

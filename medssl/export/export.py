"""Delivery: reviewed predictions as DICOM SEG and SR, as a PDF report and as a table."""

import io
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from medssl import __version__
from medssl.errors import BadInput
from medssl.export import findings_table as table
from medssl.export.findings_table import Row
from medssl.export.pdf_summary import report
from medssl.export.prior_comparison import since
from medssl.export.reviewed_findings import Item, Reviewed, counting, read
from medssl.export.source_series import origin, scanned
from medssl.files import fresh
from medssl.io import nifti
from medssl.io.dicom import seg_writer as seg
from medssl.io.dicom import sr_writer as sr
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import Kind, Maker, Segment
from medssl.io.dicom.series_writer import uid
from medssl.io.dicom.sr_writer import Measured, Reviewer
from medssl.predictions_folder import IMAGE, NOTICE, Index
from medssl.render import pdf
from medssl.review.access import reviewers as access
from medssl.review.event import Event
from medssl.review.event_store import Store, record
from medssl.review.reading import Refusal
from medssl.volume import Unit

SEG, SR, PDF, TABLE = "seg.dcm", "sr.dcm", "report.pdf", "findings.csv"
CLINICIANS = ("reader", "senior")


@dataclass(frozen=True)
class Wanted:
    """What to deliver: with which scans (none: no DICOM), also what nobody signed, in which form, for whom.

    `notes` are what readers wrote; `cases` are all unless some are named.
    """

    scans: Path | None = None
    unsigned: bool = False
    kind: Kind = "BINARY"
    organization: str = ""
    notes: bool = True
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Whether a case was delivered; if not, why."""

    case: str
    reason: str = ""


def write(index: Index, store: Store, out: Path, wanted: Wanted, by: access.Reviewer | None = None) -> list[Outcome]:
    """Writes a folder a case and one table of all findings, whole or not at all; what is left out says why.

    Each case that person `by` takes away is an event of the record before the folder gets its name.
    """
    outcomes, rows = [], []
    with fresh(out) as made:
        if faults := store.faults():
            raise BadInput(f"{store.name}: the verdicts' record is broken ({faults[0]}); see `medssl audit verify`")
        series = scanned(wanted.scans) if wanted.scans else ()
        events = store.events()
        for case in wanted.cases or index.cases:
            try:
                rows += _Case(index, case, events, wanted).write(made / case, series)
                outcomes.append(Outcome(case))
            except BadInput as reason:
                shutil.rmtree(made / case, ignore_errors=True)  # half a case is none
                outcomes.append(Outcome(case, str(reason)))
        if all(outcome.reason for outcome in outcomes):
            said = "; ".join(sorted({outcome.reason for outcome in outcomes}))
            raise BadInput(f"{index.folder}: no case can be delivered ({said})")
        table.write(made / TABLE, rows)
        if by:
            _note(index, store, by, [outcome.case for outcome in outcomes if not outcome.reason])
    return outcomes


def _note(index: Index, store: Store, by: access.Reviewer, cases: Sequence[str]) -> None:
    session = uuid.uuid4().hex
    try:
        for number, case in enumerate(cases, 1):
            record(store, index, by, case, "deliver", session=session, number=number)
    except Refusal as refusal:
        raise BadInput(f"{store.name}: {refusal}") from None


class _Case:
    """One case, the reading of it that counts, and who is responsible for that."""

    def __init__(self, index: Index, name: str, events: Sequence[Event], wanted: Wanted) -> None:
        self.index, self.name, self.events, self.wanted = index, name, events, wanted
        self.reading = counting(index, name, events, wanted.unsigned)
        mine = [e for e in events if (e.case, e.reviewer) == (name, self.reading.reviewer)]
        said = [e for e in mine if e.action == "sign"] if self.reading.signed_at else mine
        role = said[-1].role if said else ""
        signed_at = self.reading.signed_at if role in CLINICIANS else None
        self.reviewer = Reviewer(self.reading.reviewer, wanted.organization, signed_at, role)
        self.head = events[-1].hash if events else ""
        self.maker = Maker(index.weights, str(index.model.get("version", __version__)), NOTICE)

    def write(self, folder: Path, series: Sequence[Series]) -> list[Row]:
        """Writes the case's documents and gives its rows of the table."""
        unit: Unit = TypeAdapter(Unit).validate_python(self.index.units[self.name])
        image = replace(nifti.read(self.index.case(self.name) / IMAGE), unit=unit)
        done = read(self.index, self.name, self.reading)
        done.labels.require_same_grid(image.oriented("RAS"))
        scan = origin(self.name, image, series) if self.wanted.scans else None
        if scan:
            seg.check(scan)
        folder.mkdir(parents=True)
        grown = since(self.index, self.name, done.items, self.events)
        rows = [table.row(item, grown, self.wanted.notes, self._who(item, scan)) for item in done.items]
        if scan:
            self._dicom(folder, scan, done, rows)
        told = report(self.index, image, done, self.reading, self.reviewer, rows, self.head, grown)
        pdf.write(told, folder / PDF)
        return rows

    def _dicom(self, folder: Path, scan: Series, done: Reviewed, rows: Sequence[Row]) -> None:
        segments = list(self._segments(done, rows))
        made = seg.write(scan, done.parts, segments, self.maker, folder / SEG, self.wanted.kind) if segments else None
        findings = [
            Measured(
                row["finding"], row["tracking_uid"], row["name"], row["verdict"], item.number, item.finding.volume_ml,
                item.finding.diameter_mm, (item.axes.long_mm, item.axes.short_mm) if item.axes else None,
                row["reason"], row["note"],
            )
            for item, row in zip(done.items, rows, strict=True)
        ]  # fmt: skip
        sr.write(scan, made, findings, self.maker, self.reviewer, folder / SR)

    def _segments(self, done: Reviewed, rows: Sequence[Row]) -> Iterator[Segment]:
        colours = {label.value: bytes.fromhex(label.colour[1:]) for label in self.index.labels}
        for item, row in zip(done.items, rows, strict=True):
            if item.number:
                red, green, blue = colours.get(item.finding.label, b"\xff\xb0\x3b")
                name = f"{item.finding.name[:56]} {item.number}"
                found = item.finding
                yield Segment(name, found.name, found.id, row["tracking_uid"], (red, green, blue), item.corrected)

    def _who(self, item: Item, scan: Series | None) -> Row:
        """Who read the case, and what ties the finding to its documents and to the record."""
        weights = self.index.weights
        return {
            "reviewer": self.reviewer.name, "role": self.reviewer.role, "signed_at": self.reading.signed_at or "",
            "tracking_uid": str(uid("finding", scan.uid, weights, item.finding.id)) if scan else "",
            "weights_sha256": weights, "record_sha256": self.head,
        }  # fmt: skip


def archive(index: Index, store: Store, case: str, wanted: Wanted) -> bytes:
    """A zip file of the documents and the table of one case; BadInput where it cannot be delivered."""
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        out = Path(folder) / "delivered"
        write(index, store, out, replace(wanted, cases=(case,)))
        for path in sorted(out.rglob("*.*")):
            file.write(path, path.relative_to(out))
    return made.getvalue()

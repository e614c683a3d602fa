"""Delivery: reviewed predictions as DICOM SEG and SR, as a PDF report and as a table."""

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medssl import __version__
from medssl.deliver.origin import origin, scanned
from medssl.deliver.reviewed import Item, Reviewed, reviewed
from medssl.deliver.summary import report
from medssl.errors import BadInput
from medssl.files import fresh
from medssl.io import nifti, seg, sr
from medssl.io.dicom import Series
from medssl.io.seg import Kind, Maker, Segment
from medssl.io.sr import Measured, Reviewer
from medssl.io.write import uid
from medssl.render import pdf
from medssl.review.event import Event
from medssl.review.predictions import IMAGE, LABELS, NOTICE, Index, read_findings
from medssl.review.state import Reading, fold
from medssl.review.store import Store
from medssl.volume import Unit

SEG, SR, PDF, TABLE = "seg.dcm", "sr.dcm", "report.pdf", "findings.csv"
CLINICIANS = ("reader", "senior")


@dataclass(frozen=True)
class Wanted:
    """What to deliver: with which scans (none: no DICOM), also what nobody signed, in which form, for whom."""

    scans: Path | None = None
    unsigned: bool = False
    kind: Kind = "BINARY"
    organization: str = ""


@dataclass(frozen=True)
class Outcome:
    """Whether a case was delivered; if not, why."""

    case: str
    reason: str = ""


def write(index: Index, store: Store, out: Path, wanted: Wanted) -> list[Outcome]:
    """Writes a folder a case and one table of all findings, whole or not at all; what is left out says why."""
    outcomes, rows = [], []
    with fresh(out) as made:
        if faults := store.faults():
            raise BadInput(f"{store.name}: the verdicts' record is broken ({faults[0]}); see `medssl audit verify`")
        series = scanned(wanted.scans) if wanted.scans else ()
        events = store.events()
        for case in index.cases:
            try:
                rows += _Case(index, case, events, wanted).write(made / case, series)
                outcomes.append(Outcome(case))
            except BadInput as reason:
                shutil.rmtree(made / case, ignore_errors=True)  # half a case is none
                outcomes.append(Outcome(case, str(reason)))
        if all(outcome.reason for outcome in outcomes):
            said = "; ".join(sorted({outcome.reason for outcome in outcomes}))
            raise BadInput(f"{index.folder}: no case can be delivered ({said})")
        _table(made / TABLE, rows)
    return outcomes


class _Case:
    """One case, the reading of it that counts, and who is responsible for that."""

    def __init__(self, index: Index, name: str, events: Sequence[Event], wanted: Wanted) -> None:
        own = [e for e in events if e.case == name]
        self.index, self.name, self.wanted = index, name, wanted
        self.reading = _counts(name, own, wanted.unsigned)
        mine = [e for e in own if e.reviewer == self.reading.reviewer]
        weights = str(index.model.get("weights_sha256", ""))
        if any(e.model not in ("", weights) for e in mine):
            raise BadInput("its verdicts were given on another model's prediction; review this one")
        clinician = any(e.role in CLINICIANS for e in mine[-1:] if e.action == "sign")
        signed_at = self.reading.signed_at if clinician else None
        self.reviewer = Reviewer(self.reading.reviewer, wanted.organization, signed_at)
        self.head = events[-1].hash if events else ""
        self.maker = Maker(weights, str(index.model.get("version", __version__)), NOTICE)

    def write(self, folder: Path, series: Sequence[Series]) -> list[dict[str, Any]]:
        """Writes the case's documents and gives its rows of the table."""
        source = self.index.case(self.name)
        unit: Unit = TypeAdapter(Unit).validate_python(self.index.units[self.name])
        image = replace(nifti.read(source / IMAGE), unit=unit)
        names = {label.value: label.name for label in self.index.labels}
        labels = nifti.read(source / LABELS, label=True).like(image)
        done = reviewed(labels, read_findings(source), self.reading, names)
        scan = origin(self.name, image, series) if self.wanted.scans else None
        if scan:
            seg.check(scan)
        folder.mkdir(parents=True)
        rows = [self._row(item, scan) for item in done.items]
        if scan:
            self._dicom(folder, scan, done, rows)
        pdf.write(report(self.index, image, done, self.reading, self.reviewer, rows, self.head), folder / PDF)
        return rows

    def _dicom(self, folder: Path, scan: Series, done: Reviewed, rows: Sequence[dict[str, Any]]) -> None:
        segments = list(self._segments(done, rows))
        made = seg.write(scan, done.parts, segments, self.maker, folder / SEG, self.wanted.kind) if segments else None
        findings = [
            Measured(
                row["finding"], row["tracking_uid"], row["name"], row["verdict"], item.number,
                item.finding.volume_ml, item.finding.diameter_mm,
            )
            for item, row in zip(done.items, rows, strict=True)
        ]  # fmt: skip
        sr.write(scan, made, findings, self.maker, self.reviewer, folder / SR)

    def _segments(self, done: Reviewed, rows: Sequence[dict[str, Any]]) -> Iterator[Segment]:
        colours = {label.value: bytes.fromhex(label.colour[1:]) for label in self.index.labels}
        for item, row in zip(done.items, rows, strict=True):
            if item.number:
                red, green, blue = colours.get(item.finding.label, b"\xff\xb0\x3b")
                name = f"{item.finding.name[:56]} {item.number}"
                found = item.finding
                yield Segment(name, found.name, found.id, row["tracking_uid"], (red, green, blue), item.corrected)

    def _row(self, item: Item, scan: Series | None) -> dict[str, Any]:
        found, said = item.finding, item.verdict
        x, y, z = (round(mm, 2) for mm in found.centre_mm)
        return {
            "case": self.name, "finding": found.id, "label": found.label, "name": found.name,
            "verdict": said.decision if said else "", "reason": said.reason if said else "",
            "note": said.note if said else "", "corrected": int(item.corrected), "segment": item.number or "",
            "volume_ml": round(found.volume_ml, 4), "diameter_mm": round(found.diameter_mm, 2),
            "x_mm": x, "y_mm": y, "z_mm": z, "score": round(found.score, 3), "reviewer": self.reading.reviewer,
            "at": said.at if said else "", "signed_at": self.reading.signed_at or "",
            "tracking_uid": str(uid("finding", scan.uid, self.maker.weights_sha256, found.id)) if scan else "",
            "weights_sha256": self.maker.weights_sha256, "record_sha256": self.head, "notice": NOTICE,
        }  # fmt: skip


def _counts(case: str, events: Sequence[Event], unsigned: bool) -> Reading:
    """The latest signed reading; without one, if that is wanted, the latest, or the model's word alone."""
    readings = [r for (of, _), r in fold(events).items() if of == case]
    signed = [r for r in readings if r.signed_at]
    if signed:
        return max(signed, key=lambda r: r.signed_at or "")
    if not unsigned:
        raise BadInput("not signed" if readings else "not read")
    return max(readings, key=lambda r: r.latest, default=Reading(case, ""))


def _table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, list(rows[0]) if rows else ["case", "notice"])
        table.writeheader()
        table.writerows(rows)

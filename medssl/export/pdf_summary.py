"""Summary: what the PDF report of a reviewed case says and shows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from medssl import __version__
from medssl.export.findings_table import Row
from medssl.export.prior_comparison import Since
from medssl.export.reviewed_findings import Reviewed
from medssl.io.dicom.sr_writer import Reviewer
from medssl.predictions_folder import NOTICE, Index
from medssl.render.figures import around
from medssl.render.pdf import Report
from medssl.review.reading import Reading
from medssl.volume import Volume

COLUMNS = {"#": 1.0, "finding": 3.0, "ml": 1.5, "mm": 1.9, "score": 1.1, "verdict": 1.7, "reason and note": 5.0}
GROWTH = {"since the prior": 4.0}
SIZES = "mm: a x b are axes measured in a plane, a single number is the mask's longest in 3D"
MOST_PLATES = 12


def report(
    index: Index, image: Volume, done: Reviewed, reading: Reading, reviewer: Reviewer,
    rows: Sequence[Row], head: str, since: Since | None,
) -> Report:  # fmt: skip
    """The report on one case: who and what made it, a row a finding, the planes through the largest ones.

    `head` is the hash of the last event of the record: `medssl audit verify --head` tells whether it still stands.
    """
    facts = [*_about(index, image, reading), *_signed(reading, reviewer, head), *_counted(done, rows), *_before(since)]
    columns = COLUMNS | (GROWTH if since else {})
    cells = [_cells(row) + ([_grown(row, since)] if since else []) for row in rows]
    return Report(
        f"Findings in {reading.case}", NOTICE, facts, list(columns), list(columns.values()), cells,
        list(_plates(image, done, rows)),
    )  # fmt: skip


def _about(index: Index, image: Volume, reading: Reading) -> list[tuple[str, str]]:
    mm = " x ".join(f"{s:.2f}" for s in image.spacing_mm())
    return [
        ("Case", reading.case),
        ("Image", f"{' x '.join(map(str, image.shape))} voxels of {mm} mm, {image.unit}"),
        ("Run", Path(str(index.model.get("run", "unknown"))).name),
        ("Weights (SHA-256)", str(index.model.get("weights_sha256", "unknown"))),
        ("Predicted", f"{index.created} by medssl {index.model.get('version', 'unknown')}"),
        ("Written", f"{datetime.now(UTC).isoformat(timespec='seconds')} by medssl {__version__}"),
    ]


def _signed(reading: Reading, reviewer: Reviewer, head: str) -> list[tuple[str, str]]:
    who = reading.reviewer or "nobody"
    signed = f"by {who} at {reading.signed_at}" if reading.signed_at else "no: preliminary, not verified"
    verified = [] if reviewer.signed_at or not reading.signed_at else [("Verified", "no: the role signs for nobody")]
    place = [("Organization", reviewer.organization)] if reviewer.organization else []
    record = [("Record (SHA-256)", head)] if head else []
    role = f" ({reviewer.role})" if reviewer.role else ""
    return [("Reviewer", who + role), *place, ("Signed", signed), *verified, *record]


def _counted(done: Reviewed, rows: Sequence[Row]) -> list[tuple[str, str]]:
    left = sum(item.number is not None for item in done.items)
    said = Counter(str(row["verdict"]) or "no verdict" for row in rows)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(said.items()))
    count = f"{len(rows)}, of which {left} have voxels" if rows else "none"
    return [("Findings", count), ("Verdicts", told or "none"), ("Sizes", SIZES)]


def _before(since: Since | None) -> list[tuple[str, str]]:
    """Which study is the prior, whose word on it counts, and what it has that is not found any more."""
    if since is None:
        return []
    days = "" if since.days is None else f", {since.days} days before"
    read = f"read by {since.reading.reviewer}" if since.reading.reviewer else "as predicted, read by nobody"
    signed = " and signed" if since.reading.signed_at else ""
    gone = ", ".join(f"{finding.name} of {finding.volume_ml:.3f} ml" for finding in since.gone)
    return [("Prior", f"{since.prior}{days}, {read}{signed}"), ("Only in the prior", gone or "nothing")]


def _grown(row: Row, since: Since) -> str:
    if row["segment"] == "":
        return ""
    grown = since.growth.get(row["finding"])
    return grown.said if grown else "not in the prior"


def _cells(row: Row) -> list[str]:
    why = "; ".join(filter(None, (str(row["reason"]), str(row["note"]), "corrected" if row["corrected"] else "")))
    sizes = [f"{row['volume_ml']:.3f}", _mm(row), f"{row['score']:.2f}"]
    return [str(row["segment"]) or "-", str(row["name"]), *sizes, str(row["verdict"]) or "-", why]


def _mm(row: Row) -> str:
    axes = (row["long_axis_mm"], row["short_axis_mm"])
    return f"{row['diameter_mm']:.1f}" if "" in axes else "{:.1f} x {:.1f}".format(*axes)


def _plates(image: Volume, done: Reviewed, rows: Sequence[Row]) -> Iterator[tuple[str, Image.Image]]:
    """The planes through the centres of the largest findings; of a case without any, through its middle."""
    ras = image.oriented("RAS")
    found = [(item.finding, row) for item, row in zip(done.items, rows, strict=True) if item.number]
    largest = sorted(found, key=lambda pair: -pair[0].volume_ml)[:MOST_PLATES]
    for finding, row in largest:
        number, verdict = row["segment"], row["verdict"] or "no verdict"
        caption = f"# {number}  {finding.name}, {finding.volume_ml:.3f} ml, {_mm(row)} mm: {verdict}"
        yield caption, around(ras, finding.centre_mm, done.labels)
    if not largest:
        x, y, z = (float(mm) for mm in ras.to_mm((np.array(ras.shape) - 1) / 2))
        yield "The middle of the image: no finding is left", around(ras, (x, y, z))

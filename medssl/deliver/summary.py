"""Summary: what the PDF report of a reviewed case says and shows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medssl import __version__
from medssl.deliver.reviewed import Reviewed
from medssl.io.sr import Reviewer
from medssl.render.figures import around
from medssl.render.pdf import Report
from medssl.review.predictions import NOTICE, Index
from medssl.review.state import Reading
from medssl.volume import Volume

COLUMNS = {"#": 1.0, "finding": 3.4, "ml": 1.6, "mm": 1.3, "score": 1.1, "verdict": 1.8, "reason and note": 5.0}
MOST_PLATES = 12


def report(
    index: Index, image: Volume, done: Reviewed, reading: Reading, reviewer: Reviewer,
    rows: Sequence[Mapping[str, Any]], head: str,
) -> Report:  # fmt: skip
    """The report on one case: who and what made it, a row a finding, the planes through the largest ones.

    `head` is the hash of the last event of the record: `medssl audit verify --head` tells whether it still stands.
    """
    facts = [*_about(index, image, reading), *_signed(reading, reviewer, head), *_counted(done, rows)]
    return Report(
        f"Findings in {reading.case}", NOTICE, facts, list(COLUMNS), list(COLUMNS.values()),
        [_cells(row) for row in rows], list(_plates(image, done, rows)),
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
    return [("Reviewer", who), *place, ("Signed", signed), *verified, *record]


def _counted(done: Reviewed, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    left = sum(item.number is not None for item in done.items)
    said = Counter(str(row["verdict"]) or "no verdict" for row in rows)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(said.items()))
    return [("Findings", f"{len(rows)}, of which {left} have voxels" if rows else "none"), ("Verdicts", told or "none")]


def _cells(row: Mapping[str, Any]) -> list[str]:
    why = "; ".join(filter(None, (str(row["reason"]), str(row["note"]), "corrected" if row["corrected"] else "")))
    sizes = [f"{row['volume_ml']:.3f}", f"{row['diameter_mm']:.1f}", f"{row['score']:.2f}"]
    return [str(row["segment"]) or "-", str(row["name"]), *sizes, str(row["verdict"]) or "-", why]


def _plates(image: Volume, done: Reviewed, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Image.Image]]:
    """The planes through the centres of the largest findings; of a case without any, through its middle."""
    ras = image.oriented("RAS")
    found = [(item.finding, row) for item, row in zip(done.items, rows, strict=True) if item.number]
    largest = sorted(found, key=lambda pair: -pair[0].volume_ml)[:MOST_PLATES]
    for finding, row in largest:
        number, verdict = row["segment"], row["verdict"] or "no verdict"
        caption = f"# {number}  {finding.name}, {finding.volume_ml:.3f} ml, {finding.diameter_mm:.1f} mm: {verdict}"
        yield caption, around(ras, finding.centre_mm, done.labels)
    if not largest:
        x, y, z = (float(mm) for mm in ras.to_mm((np.array(ras.shape) - 1) / 2))
        yield "The middle of the image: no finding is left", around(ras, (x, y, z))

"""Builds the PDF report of a reviewed case."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from medssl.export.findings_table import FindingRow
from medssl.export.origins import describe_algorithm
from medssl.export.prior_comparison import PriorComparison
from medssl.export.reviewed_findings import ReviewedCase
from medssl.finding import format_volume
from medssl.io.dicom.derived.provenance import AlgorithmInfo
from medssl.io.dicom.sr_writer import SrReviewer
from medssl.predictions_folder import IMPORTED, NOTICE, Index
from medssl.render.figures import crop_around_lesion, lesion_planes, planes_through
from medssl.render.pdf import PICTURES_PER_PAGE, PdfReport
from medssl.render.windows import choose_window
from medssl.review.event import DECISION_TEXT
from medssl.review.reading import Reading
from medssl.version import __version__
from medssl.volume import Volume

COLUMNS = {
    "#": 1.0, "finding": 3.0, "ml": 1.5, "axial mm": 2.2, "3D mm": 1.3, "score": 1.1, "verdict": 1.7,
    "reason and note": 4.0,
}  # fmt: skip
GROWTH_COLUMN = {"change since prior": 4.0}
SIZES = (
    "axial mm: long x short axis of the mask in an axial plane, or with * as a reader measured them; 3D mm: longest "
    "diameter of the mask"
)
MAX_PLATES = 12
MAX_PAGE_ROWS = 10  # of a report on one page


def build_report(
    index: Index, image: Volume, case: ReviewedCase, reading: Reading, reviewer: SrReviewer,
    rows: Sequence[FindingRow], head: str, comparison: PriorComparison | None, is_one_page: bool = False,
) -> PdfReport:  # fmt: skip
    """Returns the report of one case: its origin, a table of the findings and the planes through the largest ones.

    Args:
        index: The predictions.
        image: The image of the case.
        case: The findings after the review.
        reading: The reading of the case.
        reviewer: The reviewer who is responsible for the reading.
        rows: The row of each finding, as in findings.csv.
        head: The hash of the last event; `medssl audit verify --anchor` checks that it is still in the event log.
        comparison: The comparison with the prior study; None without a prior study.
        is_one_page: Whether the report lists only the first findings and shows the pictures that fit on its page.
    """
    facts = [
        *_describe_case(index, image, reading),
        *_describe_sign_off(reading, reviewer, head),
        *_describe_findings(case, rows),
        *_describe_prior(comparison),
    ]
    columns = COLUMNS | (GROWTH_COLUMN if comparison else {})
    listed = rows[:MAX_PAGE_ROWS] if is_one_page else rows
    cells = [_format_cells(row) + ([_format_growth(row, comparison)] if comparison else []) for row in listed]
    if len(listed) < len(rows):
        rest = f"and {len(rows) - len(listed)} more, see the table of findings"
        cells.append(["", rest, *[""] * (len(columns) - 2)])
    max_plates = PICTURES_PER_PAGE if is_one_page else MAX_PLATES
    return PdfReport(
        f"Findings in {reading.case}", NOTICE, facts, list(columns), list(columns.values()), cells,
        list(_render_plates(image, case, rows, max_plates)), is_one_page,
    )  # fmt: skip


def _describe_case(index: Index, image: Volume, reading: Reading) -> list[tuple[str, str]]:
    spacing = " x ".join(f"{mm:.2f}" for mm in image.spacing_mm())
    return [
        ("Case", reading.case),
        ("Image", f"{' x '.join(map(str, image.shape))} voxels of {spacing} mm, {image.unit}"),
        *_describe_tool(describe_algorithm(index)),
        ("Predicted" if index.weights_sha256 != IMPORTED else "Imported", index.created),
        ("Written", f"{datetime.now(UTC).isoformat(timespec='seconds')} by medssl {__version__}"),
    ]


def _describe_tool(algorithm: AlgorithmInfo) -> list[tuple[str, str]]:
    """Returns the tool that made the outlines before the review."""
    facts = [("Outlines by", f"{algorithm.summary} ({algorithm.type.lower()})")]
    return (
        facts
        + [("Run", algorithm.run)] * bool(algorithm.run)
        + [("Weights (SHA-256)", algorithm.weights_sha256)] * bool(algorithm.weights_sha256)
    )


def _describe_sign_off(reading: Reading, reviewer: SrReviewer, head: str) -> list[tuple[str, str]]:
    """Returns who reviewed and signed, and the hash that proves it."""
    name = reading.reviewer or "none"
    role = f" ({reviewer.role})" if reviewer.role else ""
    facts = [("Reviewer", name + role)]
    if reviewer.organization:
        facts.append(("Organization", reviewer.organization))
    is_signed = reading.signed_at is not None
    meaning = f", meaning: {reading.meaning}" if reading.meaning else ""
    signed = f"by {name} at {reading.signed_at}{meaning}"
    facts.append(("Signed", signed if is_signed else "no; preliminary, not verified"))
    if is_signed and not reviewer.signed_at:
        facts.append(("Verified", "no; only a reader or senior can verify a report"))
    if head:
        facts.append(("Audit record (SHA-256)", head))
    return facts


def _describe_findings(case: ReviewedCase, rows: Sequence[FindingRow]) -> list[tuple[str, str]]:
    """Returns the number of findings and of each verdict."""
    num_segmented = sum(item.number is not None for item in case.items)
    counts = Counter(_format_verdict(row) for row in rows)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    findings = f"{len(rows)}, of which {num_segmented} are segmented" if rows else "none"
    return [("Findings", findings), ("Verdicts", verdicts or "none"), ("Sizes", SIZES)]


def _describe_prior(comparison: PriorComparison | None) -> list[tuple[str, str]]:
    """Returns the prior study, who read it, and its findings that are no longer present."""
    if comparison is None:
        return []
    days = "" if comparison.days is None else f", {comparison.days} days earlier"
    reader = comparison.reading.reviewer
    read = f"read by {reader}" if reader else "as predicted, not read"
    signed = " and signed" if comparison.reading.signed_at else ""
    resolved = ", ".join(f"{finding.name} of {format_volume(finding.volume_ml)}" for finding in comparison.resolved)
    return [("Prior", f"{comparison.prior}{days}, {read}{signed}"), ("Only in the prior", resolved or "none")]


def _format_growth(row: FindingRow, comparison: PriorComparison) -> str:
    if row["segment"] == "":
        return ""
    growth = comparison.growth.get(row["finding"])
    return growth.summary if growth else "not in the prior"


def _format_cells(row: FindingRow) -> list[str]:
    remarks = (str(row["reason"]), str(row["note"]), f"outline {row['outline_by']}" if row["corrected"] else "")
    sizes = [format_volume(row["volume_ml"]).removesuffix(" ml"), _format_axes(row), f"{row['diameter_mm']:.1f}"]
    verdict = _format_verdict(row) if row["verdict"] else "-"
    return [
        str(row["segment"]) or "-",
        str(row["name"]),
        *sizes,
        f"{row['score']:.2f}",
        verdict,
        "; ".join(filter(None, remarks)),
    ]


def _format_verdict(row: FindingRow) -> str:
    return DECISION_TEXT[row["verdict"]] if row["verdict"] else "no verdict"


def _format_axes(row: FindingRow) -> str:
    """Returns the axes that a reader measured, with a star, or else those of the mask; empty without either."""
    for prefix, mark in (("", "*"), ("mask_", "")):
        axes = (row[f"{prefix}long_axis_mm"], row[f"{prefix}short_axis_mm"])
        if "" not in axes:
            return "{:.1f} x {:.1f}".format(*axes) + mark
    return ""


def _render_plates(
    image: Volume, case: ReviewedCase, rows: Sequence[FindingRow], max_plates: int
) -> Iterator[tuple[str, Image.Image]]:
    """Yields the planes through the largest findings with captions; without findings, those through the middle."""
    ras = image.reorient("RAS")
    pairs = [(item.finding, row) for item, row in zip(case.items, rows, strict=True) if item.number]
    largest = sorted(pairs, key=lambda pair: -pair[0].volume_ml)[:max_plates]
    for finding, row in largest:
        low_mm, high_mm = finding.low_mm, finding.high_mm
        preset, window = choose_window(finding.name, crop_around_lesion(ras, low_mm, high_mm))
        size = f"{format_volume(finding.volume_ml)}, {_format_axes(row) or format(finding.diameter_mm, '.1f')} mm"
        grey = f"window {preset} ({window.low:.0f} to {window.high:.0f}{' HU' * (image.unit == 'HU')})"
        caption = f"# {row['segment']}  {finding.name}, {size}: {_format_verdict(row)}; {grey}"
        yield caption, lesion_planes(ras, case.labels, low_mm, high_mm, finding.centre_mm, window)
    if not largest:
        x, y, z = (float(mm) for mm in ras.to_mm((np.array(ras.shape) - 1) / 2))
        yield "Middle of the image; there are no findings", planes_through(ras, (x, y, z))

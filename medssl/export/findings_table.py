"""Builds the table of the reviewed findings, findings.csv; the reports use its rows too."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medssl.csv_text import neutralize_row
from medssl.export.prior_comparison import PriorComparison
from medssl.export.reviewed_findings import ReviewedFinding
from medssl.files import atomic_file
from medssl.finding import Finding
from medssl.predictions_folder import NOTICE
from medssl.review.priors import Growth
from medssl.review.recist import RecistAxes

FindingRow = dict[str, Any]


def build_row(
    item: ReviewedFinding, comparison: PriorComparison | None, include_notes: bool, extra: FindingRow
) -> FindingRow:
    """Returns the row of one finding: its verdict, sizes and growth.

    Args:
        item: The finding.
        comparison: The comparison with the prior study; None without a prior study.
        include_notes: Whether to include the free text of the reader.
        extra: Further columns, before the notice.
    """
    finding, verdict = item.finding, item.verdict
    x, y, z = (round(mm, 2) for mm in finding.centre_mm)
    return {
        "case": finding.case, "finding": finding.id, "label": finding.label, "name": finding.name,
        "kind": finding.kind,
        "verdict": verdict.decision if verdict else "", "reason": verdict.reason if verdict else "",
        "note": verdict.note if verdict and include_notes else "", "corrected": int(item.is_corrected),
        "segment": item.number or "", "volume_ml": round(finding.volume_ml, 4),
        "diameter_mm": round(finding.diameter_mm, 2), "mask_long_axis_mm": _round_or_empty(finding.long_axis_mm, 2),
        "mask_short_axis_mm": _round_or_empty(finding.short_axis_mm, 2), **_format_axes(item.axes),
        "x_mm": x, "y_mm": y, "z_mm": z, **_format_extents(finding),
        "sphericity": _round_or_empty(finding.sphericity, 3),
        "mean_intensity": _round_or_empty(finding.mean_intensity, 2),
        "sd_intensity": _round_or_empty(finding.sd_intensity, 2),
        "location": finding.location, "score": round(finding.score, 3),
        **_format_growth(comparison, finding.id), "at": verdict.at if verdict else "", **extra, "notice": NOTICE,
    }  # fmt: skip


def write_table(path: Path, rows: Sequence[FindingRow]) -> None:
    """Writes the findings of all cases, one per line."""
    with atomic_file(path, is_private=True) as part, part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]) if rows else ["case", "notice"])
        writer.writeheader()
        writer.writerows(map(neutralize_row, rows))


def _format_extents(finding: Finding) -> FindingRow:
    """Returns the columns of the sides of the bounding box."""
    sides = zip("xyz", finding.low_mm, finding.high_mm, strict=True)
    return {f"extent_{axis}_mm": round(high - low, 2) for axis, low, high in sides}


def _format_axes(axes: RecistAxes | None) -> FindingRow:
    """Returns the columns of the measured diameters; empty if they were not measured."""
    long_mm, short_mm = (round(axes.long_mm, 2), round(axes.short_mm, 2)) if axes else ("", "")
    return {"long_axis_mm": long_mm, "short_axis_mm": short_mm, "axes_plane": axes.plane if axes else ""}


def _format_growth(comparison: PriorComparison | None, finding: str) -> FindingRow:
    """Returns the columns of the change since the prior study; empty without a prior study or for a new finding."""
    growth = comparison.growth.get(finding) if comparison else None
    growth = growth or Growth(None, None, comparison.days if comparison else None)
    return {
        "prior": comparison.prior if comparison else "", "prior_days": _round_or_empty(growth.days, 0),
        "volume_change_percent": _round_or_empty(growth.volume_percent, 1),
        "diameter_change_percent": _round_or_empty(growth.diameter_percent, 1),
        "doubling_days": _round_or_empty(growth.doubling_days, 1),
    }  # fmt: skip


def _round_or_empty(number: float | None, digits: int) -> float | str:
    return "" if number is None else round(number, digits)

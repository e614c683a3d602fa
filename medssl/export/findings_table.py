"""Table: what findings.csv says of each finding, and the reports with it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medssl.export.prior_comparison import Since
from medssl.export.reviewed_findings import Item
from medssl.predictions_folder import NOTICE
from medssl.review.priors import Growth
from medssl.review.recist import Axes

Row = dict[str, Any]


def row(item: Item, since: Since | None, notes: bool, more: Row) -> Row:
    """One finding: verdict, sizes, growth, then `more`; without `notes`, no free text of a reader."""
    found, said = item.finding, item.verdict
    x, y, z = (round(mm, 2) for mm in found.centre_mm)
    return {
        "case": found.case, "finding": found.id, "label": found.label, "name": found.name,
        "verdict": said.decision if said else "", "reason": said.reason if said else "",
        "note": said.note if said and notes else "", "corrected": int(item.corrected), "segment": item.number or "",
        "volume_ml": round(found.volume_ml, 4), "diameter_mm": round(found.diameter_mm, 2), **_axes(item.axes),
        "x_mm": x, "y_mm": y, "z_mm": z, "score": round(found.score, 3), **_growth(since, found.id),
        "at": said.at if said else "", **more, "notice": NOTICE,
    }  # fmt: skip


def write(path: Path, rows: Sequence[Row]) -> None:
    """All findings of all cases, a line each."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, list(rows[0]) if rows else ["case", "notice"])
        table.writeheader()
        table.writerows(rows)


def _axes(axes: Axes | None) -> Row:
    """The diameters that a reader measured in a plane; empty where nobody did."""
    long_mm, short_mm = (round(axes.long_mm, 2), round(axes.short_mm, 2)) if axes else ("", "")
    return {"long_axis_mm": long_mm, "short_axis_mm": short_mm, "axes_plane": axes.plane if axes else ""}


def _growth(since: Since | None, finding: str) -> Row:
    """What changed since the prior study; empty where there is none, or the finding is new."""
    grown = since.growth.get(finding) if since else None
    grown = grown or Growth(None, None, since.days if since else None)
    return {
        "prior": since.prior if since else "", "prior_days": _told(grown.days, 0),
        "volume_change_percent": _told(grown.volume, 1), "diameter_change_percent": _told(grown.diameter, 1),
        "doubling_days": _told(grown.doubling_days, 1),
    }  # fmt: skip


def _told(number: float | None, digits: int) -> float | str:
    return "" if number is None else round(number, digits)

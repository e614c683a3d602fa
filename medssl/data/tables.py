"""Tables: what a CSV beside the images says of each case."""

import csv
from dataclasses import dataclass
from pathlib import Path

PATIENT = ("patient_group", "patient", "patient_id", "background_patient")
SITE = ("site", "scanner", "centre", "center")


@dataclass(frozen=True)
class Told:
    """Whose scan a case is, and where it was made; nothing where the table does not say."""

    patient: str = ""
    site: str = ""
    age_years: float | None = None
    sex: str = ""


def read(table: Path) -> dict[str, Told]:
    """Case -> what is told of it, from a CSV with a column `case` and one of patient or site; else nothing."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error):
        return {}
    columns = set(rows[0]) if rows else set()
    patient, site = (next((c for c in names if c in columns), "") for names in (PATIENT, SITE))
    if "case" not in columns or not (patient or site):
        return {}
    return {
        row["case"]: Told(
            row.get(patient) or "", row.get(site) or "", _years(row.get("age_years")), row.get("sex") or ""
        )
        for row in rows
    }


def _years(text: str | None) -> float | None:
    """A plausible age in years, or nothing."""
    try:
        return years if 0 <= (years := float(text or "")) <= 120 else None
    except ValueError:
        return None

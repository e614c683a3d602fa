"""Tables: what a CSV or JSON files beside the images say of each case."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

PATIENT = ("patient_group", "patient", "patient_id", "background_patient")
LONGEST = 1 << 20  # bytes of a JSON file that describes one case
SITE = ("site", "scanner", "centre", "center")
DATE = ("study_date", "date")


@dataclass(frozen=True)
class Told:
    """Whose scan a case is, and where and when it was made; nothing where the table does not say."""

    patient: str = ""
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    date: str = ""


def read(table: Path) -> dict[str, Told]:
    """Case -> what is told of it, from a CSV (or a JSON of one case) with `case` and patient or site; else nothing."""
    try:
        rows = _described(table) if table.suffix == ".json" else _rows(table)
    except (ValueError, RecursionError, csv.Error):
        return {}
    columns = set(rows[0]) if rows else set()
    patient, site, date = (next((c for c in names if c in columns), "") for names in (PATIENT, SITE, DATE))
    if "case" not in columns or not (patient or site):
        return {}
    named = {"patient": patient, "site": site, "sex": "sex", "date": date}
    return {
        row["case"]: Told(
            age_years=_years(row.get("age_years")), **{name: row.get(column) or "" for name, column in named.items()}
        )
        for row in rows
    }


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as handle:
        return list(csv.DictReader(handle))


def _described(file: Path) -> list[dict[str, str]]:
    told = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= LONGEST else None
    return [{key: str(value) for key, value in told.items()}] if isinstance(told, dict) else []


def _years(text: str | None) -> float | None:
    """A plausible age in years, or nothing."""
    try:
        return years if 0 <= (years := float(text or "")) <= 120 else None
    except ValueError:
        return None

"""Reads patient, site, age, sex and study date of each case from a CSV, or from JSON files next to the images."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

PATIENT_COLUMNS = ("patient_group", "patient", "patient_id", "background_patient")
SITE_COLUMNS = ("site", "scanner", "centre", "center")
DATE_COLUMNS = ("study_date", "date")
MAX_JSON_BYTES = 1 << 20
MAX_PLAUSIBLE_YEARS = 120


@dataclass(frozen=True)
class CaseMetadata:
    """The patient of a case, and where and when it was scanned; empty where the table does not say."""

    patient: str = ""
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    date: str = ""


def read_case_metadata(table: Path) -> dict[str, CaseMetadata]:
    """Returns the metadata of each case.

    Args:
        table: A CSV with one row per case, or a JSON file of one case.

    Returns:
        Case to metadata; empty unless the table has a column `case`, and one for the patient or the site.
    """
    try:
        rows = _read_json(table) if table.suffix == ".json" else _read_csv(table)
    except (ValueError, RecursionError, csv.Error):
        return {}
    columns = set(rows[0]) if rows else set()
    names = (PATIENT_COLUMNS, SITE_COLUMNS, DATE_COLUMNS)
    patient, site, date = (next((name for name in choices if name in columns), "") for choices in names)
    if "case" not in columns or not (patient or site):
        return {}
    column_of = {"patient": patient, "site": site, "sex": "sex", "date": date}
    return {
        row["case"]: CaseMetadata(
            age_years=_parse_years(row.get("age_years")),
            **{name: row.get(column) or "" for name, column in column_of.items()},
        )
        for row in rows
    }


def _read_csv(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as handle:
        return list(csv.DictReader(handle))


def _read_json(file: Path) -> list[dict[str, str]]:
    parsed = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= MAX_JSON_BYTES else None
    return [{key: str(value) for key, value in parsed.items()}] if isinstance(parsed, dict) else []


def _parse_years(text: str | None) -> float | None:
    """Returns a plausible age in years, else None."""
    try:
        return years if 0 <= (years := float(text or "")) <= MAX_PLAUSIBLE_YEARS else None
    except ValueError:
        return None

"""Reads patient, site, age, sex and study date of each case from a CSV, or from JSON files next to the images."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

PATIENT_COLUMNS = ("patient_group", "patient", "patient_id", "background_patient")
SITE_COLUMNS = ("site", "scanner", "centre", "center")
DATE_COLUMNS = ("study_date", "date")
SUBJECT_COLUMNS = ("participant_id", "image_id", "subject", "subject_id")
SUBJECT_SITE_COLUMNS = (*SITE_COLUMNS, "institute", "institution", "study_site")
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
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
    split: str = ""


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
            split=SPLITS.get((row.get("split") or "").strip().lower(), ""),
            **{name: row.get(column) or "" for name, column in column_of.items()},
        )
        for row in rows
    }


def read_subjects(table: Path) -> dict[str, CaseMetadata]:
    """Returns the metadata of each subject of a participants.tsv of BIDS, or of a meta.csv of TotalSegmentator.

    Args:
        table: A table with a column `participant_id` or `image_id`.
    """
    rows = read_rows(table)
    columns = {name.strip().lower(): name for name in (rows[0] if rows else ()) if name}
    key = next((columns[name] for name in SUBJECT_COLUMNS if name in columns), None)
    if key is None:
        return {}
    site = next((columns[name] for name in SUBJECT_SITE_COLUMNS if name in columns), "")
    sex, age = columns.get("sex") or columns.get("gender", ""), columns.get("age", "")
    return {
        row[key]: CaseMetadata(
            site=_clean(row.get(site)),
            age_years=_parse_years(row.get(age)),
            sex=_clean(row.get(sex))[:1].upper(),
            split=SPLITS.get(_clean(row.get(columns.get("split", ""))).lower(), ""),
        )
        for row in rows
    }


def read_rows(table: Path) -> list[dict[str, str]]:
    """Returns the rows of a table with commas, semicolons or tabs; none if it cannot be parsed."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            header = handle.readline()
            separator = max("\t;,", key=header.count)
            handle.seek(0)
            return list(csv.DictReader(handle, delimiter=separator))
    except (OSError, ValueError, csv.Error):
        return []


def _clean(text: str | None) -> str:
    """Returns the text of a cell; n/a, as BIDS writes what is unknown, is empty."""
    stripped = (text or "").strip()
    return "" if stripped.lower() in ("n/a", "na", "nan", "unknown") else stripped


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

"""Finds the radiology report of each case: in a table, or next to the scans that the store was made from."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from medssl.data.case_tables import read_case_column
from medssl.data.ingest.deidentification import read_real_rows, read_real_sources
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.io.dicom.derived.sr_reader import read_report, read_study_uid

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|[\r\n]+")
MIN_LETTERS = 3
IMAGE_SUFFIXES = re.compile(r"(\.(nii|nrrd|mha|mhd|mgh|mgz|gz|zip))+$", re.IGNORECASE)
MAX_REPORT_BYTES = 1 << 20


def read_reports(manifest: Manifest, table: Path | None = None) -> dict[str, str]:
    """Returns the report of each case that has one.

    Args:
        manifest: The cases.
        table: A table with the columns case (or patient) and report, in the names of the manifest; None looks next to
            the scans, for a text file with the name of the image, and for structured reports of the same DICOM study.

    Raises:
        BadInput: No case has a report, or the table cannot be read.
    """
    if table is not None:
        key, texts = read_case_column(table, "report")
        reports = {case.id: texts.get(case.patient if key == "patient" else case.id, "") for case in manifest.cases}
    else:
        reports = _find_next_to_scans(manifest)
    reports = {case: text for case, text in reports.items() if split_sentences(text)}
    if not reports:
        where = f"{table} names no case" if table else "no text file and no structured report lies next to the scans"
        raise BadInput(f"{where} of {manifest.folder}; give a table with the columns case and report by --reports")
    return reports


def split_sentences(text: str) -> list[str]:
    """Returns the sentences and lines of a report that hold words."""
    parts = (" ".join(part.split()) for part in SENTENCE_END.split(text))
    return [part for part in parts if sum(letter.isalpha() for letter in part) >= MIN_LETTERS]


def _find_next_to_scans(manifest: Manifest) -> dict[str, str]:
    """Returns the text file of each image, and the structured reports of the study of each DICOM series."""
    sources = read_real_sources(manifest.cases, manifest.folder)
    rows = read_real_rows(manifest.folder)
    text_of_study = _read_studies(Path(row.path) for row in rows if not row.case)
    first_file: dict[str, Path] = {}
    for row in rows:
        if row.case:
            first_file.setdefault(row.case, Path(row.path))
    reports = {}
    for case, source in sources.items():
        neighbour = Path(IMAGE_SUFFIXES.sub("", source) + ".txt")
        if neighbour.is_file():
            reports[case] = _read_text(neighbour)
        elif case in first_file and text_of_study:
            reports[case] = text_of_study.get(read_study_uid(first_file[case]) or "-", "")
    return reports


def _read_studies(paths: Iterable[Path]) -> Mapping[str, str]:
    """Returns the texts of structured reports by the UID of their study."""
    texts: dict[str, list[str]] = {}
    for path in sorted(paths):
        if path.is_file() and (report := read_report(path)):
            texts.setdefault(report[0], []).append(report[1])
    return {study: "\n".join(parts) for study, parts in texts.items()}


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise BadInput(f"{path}: {path.stat().st_size} bytes are too many for a report; remove it, or give --reports")
    return path.read_text(encoding="utf-8", errors="replace")

"""Reads the text of DICOM structured reports.

DICOM PS3.3, C.17.3, https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.17.3.html.
"""

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."  # UIDs of the storage classes of structured reports begin so


def read_study_uid(path: Path) -> str:
    """Returns the UID of the study of a DICOM file; "" if it is none or states none."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
    except (OSError, InvalidDicomError, ValueError, KeyError, EOFError):
        return ""
    return str(dataset.get("StudyInstanceUID") or "")


def read_report(path: Path) -> tuple[str, str] | None:
    """Returns the study UID and the text of a structured report, a line for each item; None if the file is none.

    Texts and codes are taken in the order of the document, codes with their names: `Finding: Nodule`.
    """
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError, ValueError, KeyError, EOFError):
        return None
    if not str(dataset.get("SOPClassUID") or "").startswith(SR_CLASSES):
        return None
    return str(dataset.get("StudyInstanceUID") or ""), "\n".join(_iterate_lines(dataset))


def _iterate_lines(item: Dataset) -> Iterator[str]:
    """Yields the texts of an item and of those within it."""
    if text := str(item.get("TextValue") or "").strip():
        yield text
    elif concept := _read_meaning(item, "ConceptCodeSequence"):
        name = _read_meaning(item, "ConceptNameCodeSequence")
        yield f"{name}: {concept}" if name else concept
    for child in item.get("ContentSequence") or ():
        yield from _iterate_lines(child)


def _read_meaning(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence) or ()
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""

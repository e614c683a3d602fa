"""Patients: what a predictions folder says of each, over all of the patient's scans."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.files import seal, write_text
from medssl.metrics.case_scores import table
from medssl.metrics.detection_scores import overall
from medssl.predictions_folder import Index, read_findings

FILE = "patients.csv"


@dataclass(frozen=True)
class Score:
    """How sure it is that a patient has a label: `surest` and `noisy_or` as in `metrics.detection.Patient`."""

    patient: str
    label: str
    scans: int
    findings: int
    surest: float
    noisy_or: float


def write(index: Index) -> Path:
    """Writes FOLDER/patients.csv, a row a patient and label, the surest patients of a label first, and seals it."""
    rows = sorted(_scores(index), key=lambda row: (row.label, -row.surest, row.patient))
    write_text(index.folder / FILE, table(rows))
    seal(index.folder, (FILE,))
    return index.folder / FILE


def _scores(index: Index) -> Iterator[Score]:
    """A case whose patient nobody told is a patient of its own."""
    whose: dict[str, list[str]] = {}
    for case in index.cases:
        whose.setdefault(index.study(case).patient or case, []).append(case)
    for patient, cases in whose.items():
        found = [finding for case in cases for finding in read_findings(index.case(case))]
        for label in index.labels:
            scores = np.array([finding.score for finding in found if finding.label == label.value], float)
            yield Score(patient, label.name, len(cases), len(scores), *overall(scores))

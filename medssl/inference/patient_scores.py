"""Computes a score for each patient and label from the findings of all scans, and writes patients.csv."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.files import write_checksums, write_text
from medssl.metrics.case_scores import to_csv
from medssl.metrics.detection_scores import combine_scores
from medssl.predictions_folder import Index, read_findings

PATIENTS_FILE = "patients.csv"


@dataclass(frozen=True)
class PatientScore:
    """A row of patients.csv: the probability that a patient has a label.

    Args:
        patient: The id of the patient.
        label: The class name.
        scans: The number of scans.
        findings: The number of findings over all scans.
        max_score: The highest score of a finding, 0 if there is none.
        noisy_or: 1 minus the product of (1 - score) over all findings.
    """

    patient: str
    label: str
    scans: int
    findings: int
    max_score: float
    noisy_or: float


def write_patient_scores(index: Index) -> Path:
    """Writes patients.csv to a predictions folder, sorted by label and descending score, and adds its checksum."""
    rows = sorted(_compute_scores(index), key=lambda row: (row.label, -row.max_score, row.patient))
    write_text(index.folder / PATIENTS_FILE, to_csv(rows))
    write_checksums(index.folder, (PATIENTS_FILE,))
    return index.folder / PATIENTS_FILE


def _compute_scores(index: Index) -> Iterator[PatientScore]:
    """Yields one score per patient and label; a case without a known patient counts as a patient of its own."""
    cases_of_patient: dict[str, list[str]] = {}
    for case in index.cases:
        cases_of_patient.setdefault(index.find_study(case).patient or case, []).append(case)
    for patient, cases in cases_of_patient.items():
        findings = [finding for case in cases for finding in read_findings(index.case_folder(case))]
        for label in index.labels:
            scores = np.array([finding.score for finding in findings if finding.label == label.value], float)
            yield PatientScore(patient, label.name, len(cases), len(scores), *combine_scores(scores))

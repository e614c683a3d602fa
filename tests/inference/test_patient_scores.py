"""Patient scores combine the findings of all scans of a patient."""

import csv
from dataclasses import replace

import pytest

from medssl import files
from medssl.inference.patient_scores import PATIENTS_FILE, write_patient_scores
from medssl.predictions_folder import StudyRef, read_findings, read_index


def test_scores_combine_all_scans_and_are_sorted(predictions):
    index = read_index(predictions)
    first, second, *others = index.cases
    shared = replace(index, studies=index.studies | {first: StudyRef("p"), second: StudyRef("p")})
    rows = list(csv.DictReader(write_patient_scores(shared).read_text().splitlines()))
    assert {row["patient"] for row in rows} == {"p", *others}
    assert len(rows) == len(index.labels) * (len(index.cases) - 1)
    for label in index.labels:
        label_rows = [row for row in rows if row["label"] == label.name]
        assert [float(row["max_score"]) for row in label_rows] == sorted(
            (float(row["max_score"]) for row in label_rows), reverse=True
        )
        (row_of_p,) = [row for row in label_rows if row["patient"] == "p"]
        scores = [
            f.score
            for case in (first, second)
            for f in read_findings(index.case_folder(case))
            if f.label == label.value
        ]
        probability_of_none = 1.0
        for score in scores:
            probability_of_none *= 1 - score
        assert (int(row_of_p["scans"]), int(row_of_p["findings"])) == (2, len(scores))
        assert float(row_of_p["max_score"]) == max(scores, default=0) and float(row_of_p["noisy_or"]) == pytest.approx(
            1 - probability_of_none
        )
    assert any(int(row["findings"]) for row in rows)
    assert files.read_checksums(predictions)[PATIENTS_FILE] == files.sha256(predictions / PATIENTS_FILE)

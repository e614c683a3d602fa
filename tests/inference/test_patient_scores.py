"""A patient's score is that of all of the patient's scans, beside every predictions folder."""

import csv
from dataclasses import replace

import pytest

from medssl import files
from medssl.inference import patient_scores as patients
from medssl.predictions_folder import Study, read_findings, read_index


def test_patients_are_scored_over_all_their_scans_and_the_surest_come_first(predictions):
    index = read_index(predictions)
    first, second, *others = index.cases
    told = replace(index, studies=index.studies | {first: Study("p"), second: Study("p")})
    rows = list(csv.DictReader(patients.write(told).read_text().splitlines()))
    assert {row["patient"] for row in rows} == {"p", *others}
    assert len(rows) == len(index.labels) * (len(index.cases) - 1)
    for label in index.labels:
        mine = [row for row in rows if row["label"] == label.name]
        assert [float(row["surest"]) for row in mine] == sorted((float(row["surest"]) for row in mine), reverse=True)
        (one,) = [row for row in mine if row["patient"] == "p"]
        scores = [
            f.score for case in (first, second) for f in read_findings(index.case(case)) if f.label == label.value
        ]
        none = 1.0
        for score in scores:
            none *= 1 - score
        assert (int(one["scans"]), int(one["findings"])) == (2, len(scores))
        assert float(one["surest"]) == max(scores, default=0) and float(one["noisy_or"]) == pytest.approx(1 - none)
    assert any(int(row["findings"]) for row in rows)
    assert files.read_checksums(predictions)[patients.FILE] == files.sha256(predictions / patients.FILE)

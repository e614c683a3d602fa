"""The record says which prediction the readers judged."""

import json
from dataclasses import replace

import pytest

from medssl import cli
from medssl.files import sha256, write_checksums
from medssl.predictions_folder import read_index
from medssl.review.access.evidence import gather_evidence
from medssl.review.access.reviewers import Reviewer
from medssl.review.audit.prediction_events import find_changed_inputs, record_predictions
from medssl.review.consensus.reading_of_record import select_reading_of_record
from medssl.review.event import Act
from medssl.review.event_store import EventStore, get_default_database, record_act
from medssl.review.reading import replay


@pytest.fixture
def store(predictions):
    return EventStore(get_default_database(predictions))


def test_each_case_is_recorded_once_with_run_weights_inputs_time_and_settings(predictions, store):
    index = replace(read_index(predictions), options={"tta": True})
    assert record_predictions(index, store, "ben") == 3 and record_predictions(index, store, "ana") == 0
    first = store.read_events()[0]
    details = json.loads(first.details)
    assert (first.action, first.case, first.reviewer, first.model) == ("predict", "case-a", "ben", "0" * 64)
    assert details["model"]["run"] == "runs/a" and details["created"] == "2026-01-01"
    assert details["settings"] == {"options": {"tta": True}}
    assert first.facts["image"] == sha256(predictions / "case-a" / "image.nii.gz")
    assert first.facts["labels"] == sha256(predictions / "case-a" / "labels.nii.gz")
    assert store.find_faults() == []


def test_another_prediction_of_a_case_is_another_event(predictions, store):
    index = read_index(predictions)
    record_predictions(index, store)
    assert record_predictions(replace(index, model=index.model | {"weights_sha256": "1" * 64}), store) == 3


def test_the_hashes_are_those_of_the_prediction_not_of_today(predictions, store):
    path = predictions / "case-a" / "image.nii.gz"
    before = sha256(path)
    write_checksums(predictions, [f"case-a/{name}" for name in ("image.nii.gz", "labels.nii.gz")])
    path.write_bytes(path.read_bytes() + b"0")
    record_predictions(read_index(predictions), store)
    assert store.read_events()[0].facts["image"] == before


def test_a_verdict_on_changed_labels_is_reported(predictions, store, capsys):
    index, ana = read_index(predictions), Reviewer("ana", "senior")
    record_predictions(index, store)
    record_act(store, index, ana, "case-a", "accept", session="s", number=1, finding="case-a-1-1")
    assert find_changed_inputs(store.read_events()) == []
    path = predictions / "case-a" / "labels.nii.gz"
    path.write_bytes(path.read_bytes() + b"0")
    evidence = gather_evidence(index, ana, "case-a", "accept")
    fields = {"session": "s", "case": "case-a", "reviewer": "ana", "role": "senior", "model": index.weights_sha256}
    store.record(Act(**fields, number=2, action="accept", finding="case-a-1-2"), evidence=evidence)
    assert cli.run("audit", ["verify", store.name]) == 0
    assert "warning: event 5: the labels of case-a on screen differed" in capsys.readouterr().out


def test_a_prediction_is_no_reading_and_holds_no_case_open(predictions, store):
    index = read_index(predictions)
    record_predictions(index, store, "ana")
    assert replay(store.read_events()) == {} and store.load_snapshot().visits == {}
    assert select_reading_of_record(index, "case-a", store.read_events(), include_unsigned=True).reviewer == ""


def test_the_export_names_the_prediction(predictions, store, tmp_path):
    record_predictions(read_index(predictions), store)
    assert cli.run("audit", ["export", store.name, "--out", str(tmp_path / "trail.html")]) == 0
    page = (tmp_path / "trail.html").read_text()
    assert "predicted" in page and "runs/a" in page and sha256(predictions / "case-a" / "image.nii.gz") in page
    assert cli.run("audit", ["list", store.name]) == 0

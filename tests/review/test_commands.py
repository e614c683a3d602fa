"""The commands of the review, as a user calls them."""

import json
import sqlite3
from contextlib import closing

import pytest

from medssl import cli
from medssl.review.event import Act
from medssl.review.event_store import EventStore, get_default_database


@pytest.fixture
def store(predictions):
    store = EventStore(get_default_database(predictions))
    for n, finding in enumerate(("case-a-1-1", "case-a-1-2")):
        fields = {"session": "s", "number": n, "case": "case-a", "reviewer": "ana", "role": "reader"}
        store.record(Act(**fields, action="accept", finding=finding))
    return store


def test_feedback_writes_a_data_set_and_names_the_excluded_cases(store, predictions, tmp_path, capsys):
    assert cli.run("feedback", [str(predictions), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "left out case-b: not read" in output and "1 of 3 cases" in output
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 1


def test_feedback_without_verdicts_is_bad_input(predictions, tmp_path, capsys):
    assert cli.run("feedback", [str(predictions), "--out", str(tmp_path / "out")]) == 2
    assert "no verdicts here" in capsys.readouterr().err


def test_audit_verifies_lists_and_finds_a_change(store, capsys):
    assert cli.run("audit", ["verify", str(store.name)]) == 0
    head = capsys.readouterr().out.split()[-1]
    assert cli.run("audit", ["verify", str(store.name), "--anchor", head]) == 0
    assert cli.run("audit", ["list", str(store.name)]) == 0
    assert capsys.readouterr().out.count("case-a-1-1") == 1
    with closing(sqlite3.connect(store.name)) as db, db:
        db.execute("DROP TRIGGER no_update")
        db.execute("UPDATE event SET reviewer = 'eve' WHERE id = 1")
    assert cli.run("audit", ["verify", str(store.name)]) == 2
    assert "event 1: changed" in capsys.readouterr().err


def test_audit_exports_for_people_and_for_programs(store, predictions, tmp_path, capsys):
    fields = {"session": "t", "case": "case-a", "reviewer": "ana", "role": "senior"}
    store.record(Act(**fields, number=1, action="reject", finding="case-a-1-1", note="<b>=1+1"))
    store.record(Act(**fields, number=2, action="edit", finding="case-a-1-2", note="=1+1"))
    store.record(Act(**fields, number=3, action="sign", details="[]"))
    for suffix in ("html", "csv", "jsonl"):
        assert cli.run("audit", ["export", store.name, "--out", str(tmp_path / f"trail.{suffix}")]) == 0
        assert (tmp_path / f"trail.{suffix}").stat().st_mode & 0o777 == 0o600
    rows = [json.loads(line) for line in (tmp_path / "trail.jsonl").read_text().splitlines()]
    assert [row["assessment"] for row in rows] == ["accepted", "accepted", "rejected", "supplemented", ""]
    assert (rows[-1]["action"], rows[-1]["meaning"], rows[-1]["code"]) == ("signed", "approved", "sign")
    assert [row["hash"] for row in rows] == [event.hash for event in store.read_events()]
    page = (tmp_path / "trail.html").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and "The chain is unbroken" in page and "approved" in page
    assert ",'=1+1," in (tmp_path / "trail.csv").read_text()
    assert cli.run("audit", ["export", store.name, "--out", str(tmp_path / "trail.pdf")]) == 2
    assert cli.run("audit", ["export", store.name]) == 2
    assert ".jsonl" in capsys.readouterr().err


def test_audit_finds_a_cut_tail_with_an_anchor_file(store, tmp_path, capsys):
    anchor_file = tmp_path / "elsewhere.txt"
    for _ in range(2):
        assert cli.run("audit", ["verify", store.name, "--anchor-file", str(anchor_file)]) == 0
    assert anchor_file.read_text() == store.read_events()[-1].hash + "\n"
    with closing(sqlite3.connect(store.name)) as db, db:
        db.execute("DROP TRIGGER no_delete")
        db.execute("DELETE FROM event WHERE id = 2")
    assert cli.run("audit", ["verify", store.name]) == 0
    capsys.readouterr()
    assert cli.run("audit", ["verify", store.name, "--anchor-file", str(anchor_file)]) == 2
    assert "the chain was cut" in capsys.readouterr().err
    assert len(anchor_file.read_text().split()) == 1


@pytest.mark.parametrize("empty", [True, False])
def test_review_without_cases_is_bad_input(predictions, tmp_path, capsys, empty):
    if empty:
        index = json.loads((predictions / "index.json").read_text())
        (predictions / "index.json").write_text(json.dumps(index | {"cases": []}))
    assert cli.run("review", [str(predictions if empty else tmp_path / "none")]) == 2
    assert "medssl predict" in capsys.readouterr().err


def test_verdicts_on_another_models_prediction_are_not_shown_on_this_one(store, predictions, capsys):
    fields = {"session": "t", "case": "case-b", "reviewer": "ana", "role": "reader", "model": "f" * 64}
    store.record(Act(**fields, number=1, action="open"))
    assert cli.run("review", [str(predictions), "--port", "70000"]) == 2
    assert "ports go up to 65535" in capsys.readouterr().err  # nothing else is wrong
    store.record(Act(**fields, number=2, action="accept", finding="case-b-1-1"))
    assert cli.run("review", [str(predictions), "--port", "70000"]) == 2
    assert "another model's prediction" in capsys.readouterr().err


def test_review_on_a_port_in_use_is_bad_input(predictions, capsys):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert cli.run("review", [str(predictions), "--port", str(listener.getsockname()[1])]) == 2
    assert "another --port" in capsys.readouterr().err

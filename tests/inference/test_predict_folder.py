"""A predictions folder is filled as far as scans can be read, says what is missing, and is gone on with later."""

import json
from contextlib import suppress

import numpy as np
import pytest

from medssl import cli
from medssl.data.ingest.read_source import Scan
from medssl.errors import BadInput
from medssl.files import read_checksums, sha256
from medssl.inference import prediction_writer as folder
from medssl.inference.prediction_writer import Writer
from medssl.inference.predictor import Prediction, Predictor
from medssl.predictions_folder import read_index
from medssl.volume import Volume
from tests.helpers.finished_runs import finished, scans


@pytest.fixture
def made(tmp_path):
    finished(tmp_path / "a")
    scans(tmp_path / "scans", 3)
    return tmp_path


def predict(made, *more, run="a"):
    words = (made / run, made / "scans", "--modality", "CT", "--out", made / "out", *more)
    return cli.run("predict", [str(word) for word in words])


def test_a_scan_that_cannot_be_read_is_left_out_and_taken_once_it_can(made, capsys, caplog):
    good, bad = made / "scans" / "scan2.nii.gz", made / "scans" / "scan1.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    assert predict(made) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 3 cases could not be predicted: scan1: " in said and "--resume" in said
    assert "scan1: left out" in caplog.text
    index = read_index(made / "out")
    assert index.cases == ("scan0", "scan2") and index.missing == ["scan1"] and index.unread["scan1"]
    assert predict(made) == 2
    assert "1 cases are missing there; add --resume" in capsys.readouterr().err
    bad.write_bytes(whole)
    good.unlink()  # what is there already is not read again
    before = sha256(made / "out" / "scan2" / "labels.nii.gz")
    good.write_bytes(b"")
    assert predict(made, "--resume") == 0
    index = read_index(made / "out")
    assert index.cases == ("scan0", "scan2", "scan1") and not index.missing and not index.unread
    sealed = read_checksums(made / "out")
    assert {name: sha256(made / "out" / name) for name in sealed} == sealed
    assert sealed["scan2/labels.nii.gz"] == before and "patients.csv" in sealed
    assert predict(made) == 2 and "exists already" in capsys.readouterr().err


def test_a_killed_prediction_goes_on_to_the_same_folder(made, monkeypatch):
    assert predict(made) == 0
    (made / "out").rename(made / "whole")
    ask, asked = Predictor.__call__, []

    def killed(self, *words):
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(self, *words)

    monkeypatch.setattr(Predictor, "__call__", killed)
    assert predict(made) == 130
    assert read_index(made / "out").missing == ["scan1", "scan2"]
    assert predict(made, "--resume") == 0
    whole, torn = read_checksums(made / "whole"), read_checksums(made / "out")
    assert {n: torn[n] for n in whole if n != "index.json"} == {n: whole[n] for n in whole if n != "index.json"}
    assert read_index(made / "out").cases == read_index(made / "whole").cases


@pytest.mark.parametrize("after", [0, 1])
def test_a_case_that_was_half_told_when_the_program_was_killed_is_predicted_again(made, monkeypatch, after):
    write = folder._write_index

    def killed(index):
        if len(index.cases) > after:
            raise KeyboardInterrupt
        write(index)

    monkeypatch.setattr(folder, "_write_index", killed)
    assert predict(made) == 130
    assert len(read_index(made / "out").cases) == after
    monkeypatch.setattr(folder, "_write_index", write)
    assert predict(made, "--resume") == 0
    assert read_index(made / "out").cases == ("scan0", "scan1", "scan2")


def test_a_reason_that_may_name_somebody_stays_out_of_the_folder(made):
    (made / "scans").rename(made / "DOE_JANE")
    (made / "DOE_JANE" / "scan1.nii.gz").write_bytes(b"no gzip")
    words = (made / "a", made / "DOE_JANE", "--modality", "CT", "--out", made / "out")
    assert cli.run("predict", [str(word) for word in words]) == 2
    assert "DOE" not in (made / "out" / "index.json").read_text() and read_index(made / "out").unread["scan1"]


def test_another_model_does_not_go_on_in_the_folder(made, capsys):
    (made / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(made) == 2
    finished(made / "b", seed=1)
    assert predict(made, "--resume", run="b") == 2
    assert "was begun with another model" in capsys.readouterr().err
    assert read_index(made / "out").cases == ("scan0", "scan1")


def test_a_scan_that_was_removed_is_asked_for_no_more(made, capsys):
    bad = made / "scans" / "scan1.nii.gz"
    bad.write_bytes(b"")
    assert predict(made) == 2 and read_index(made / "out").missing == ["scan1"]
    bad.unlink()
    assert predict(made, "--resume") == 0
    index = read_index(made / "out")
    assert index.asked == ["scan0", "scan2"] and not index.missing and not index.unread
    assert {name: sha256(made / "out" / name) for name in read_checksums(made / "out")} == read_checksums(made / "out")


@pytest.mark.parametrize("more", [["--modality", "MR"], ["--mirror"]])
def test_another_way_to_read_scans_does_not_go_on_in_the_folder(made, capsys, more):
    (made / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(made) == 2
    assert predict(made, "--resume", *more) == 2
    assert f"was begun with another {more[0]}" in capsys.readouterr().err.replace("uncertainty, ", "")


def test_a_model_that_lies_elsewhere_now_goes_on_in_the_folder(made):
    (made / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(made) == 2
    (made / "a").rename(made / "moved")
    (made / "scans" / "scan2.nii.gz").unlink()
    assert predict(made, "--resume", run="moved") == 0


def taken(case, day, fails=False):
    def read():
        if fails:
            raise BadInput("is torn")
        return Volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "HU")

    return Scan(case, "p", day, read)


def empty(image, case):
    blank = [Volume(np.zeros(image.shape, kind), image.affine, unit) for kind, unit in KINDS]
    return Prediction(*blank, ())


KINDS = ((np.uint8, "label"), (np.float32, "probability"))
MODEL = {"run": "r", "weights_sha256": "x"}


@pytest.mark.parametrize(
    ("first", "then", "days"),
    [
        (
            [taken("a", 0, True), taken("b", 30), taken("c", 60, True)],
            [taken("b", 30), taken("c", 60)],
            {"b": 0, "c": 30},
        ),
        ([taken("b", 130)], [taken("a", 0), taken("b", 130)], {"a": 0, "b": 130}),
        ([taken("a", 0), taken("b", 30)], [taken("c", 60)], {"a": None, "b": None, "c": 0}),
    ],
)
def test_days_between_studies_stay_true_in_a_folder_that_is_gone_on_with(tmp_path, first, then, days):
    writer = Writer.create(tmp_path / "out", {1: "t"}, MODEL, asked=[scan.case for scan in first])
    with suppress(BadInput):
        writer.fill(first, empty)
    Writer.resume(tmp_path / "out", {1: "t"}, MODEL, asked=[scan.case for scan in then]).fill(then, empty)
    index = read_index(tmp_path / "out")
    assert {case: index.study(case).day for case in index.cases} == days


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    scan = taken("a", 0)
    writer = Writer.create(tmp_path / "out", {1: "t"}, MODEL, asked=["a", "b", "c"])
    image = scan.read()
    writer = writer.add("a", image, empty(image, "a"))
    first, second = (Writer.resume(tmp_path / "out", {1: "t"}, MODEL) for _ in range(2))
    first.add("b", image, empty(image, "b"))
    for late in (second, Writer(writer.index)):
        with pytest.raises(BadInput, match="another process writes there"):
            late.add("c", image, empty(image, "c"))
    assert read_index(tmp_path / "out").cases == ("a", "b")


def test_the_only_scan_that_cannot_be_read_is_one_line(made, capsys):
    for name in ("scan1", "scan2"):
        (made / "scans" / f"{name}.nii.gz").unlink()
    (made / "scans" / "scan0.nii.gz").write_bytes(b"no gzip")
    assert predict(made) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("medssl predict: scan0: ")
    assert not (made / "out").exists()


def test_scores_of_an_unfinished_folder_say_so(made, caplog):
    (made / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(made) == 2
    labels = made / "labels"
    labels.mkdir()
    for case in ("scan0", "scan1"):
        (labels / f"{case}.nii.gz").write_bytes((made / "out" / case / "labels.nii.gz").read_bytes())
    assert cli.run("evaluate", [str(made / "out"), "--labels", str(labels)]) == 0
    assert "1 of 3 cases are missing there" in caplog.text
    assert json.loads((made / "out" / "evaluation" / "summary.json").read_text())["missing"] == ["scan2"]


def test_a_network_that_saw_mr_alone_refuses_a_ct(made, capsys):
    run, card = made / "a", json.loads((made / "a" / "run.json").read_text())
    card["network"]["units"] = ["a.u."]
    (run / "run.json").chmod(0o644)
    (run / "run.json").write_text(json.dumps(card))
    for name in ("scan1", "scan2"):
        (made / "scans" / f"{name}.nii.gz").unlink()
    assert predict(made) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "this scan is a CT, the network learnt from others alone; --modality tells what it is" in said
    assert not (made / "out").exists()
    words = [str(word) for word in (run, made / "scans", "--modality", "MR", "--out", made / "out")]
    assert cli.run("predict", words) == 0


def test_a_place_that_cannot_be_written_is_told_before_anything_is_predicted(made, capsys, monkeypatch):
    monkeypatch.setattr(Predictor, "__call__", None)
    (made / "out").touch()
    words = (made / "a", made / "scans", "--modality", "CT", "--out", made / "out" / "p")
    assert cli.run("predict", [str(word) for word in words]) == 2
    assert "cannot be written" in capsys.readouterr().err

"""A predictions folder holds all readable scans, records the missing ones, and can be resumed."""

import json
from contextlib import suppress

import numpy as np
import pytest

from medssl import cli
from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.files import read_checksums, sha256
from medssl.inference import prediction_writer
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_stream import Prediction
from medssl.predictions_folder import read_index
from medssl.volume import Volume
from tests.helpers.finished_runs import make_finished_run, write_scans


@pytest.fixture
def place(tmp_path):
    make_finished_run(tmp_path / "a")
    write_scans(tmp_path / "scans", 3)
    return tmp_path


def predict(place, *options, run="a"):
    args = (place / run, place / "scans", "--modality", "CT", "--out", place / "out", *options)
    return cli.run("predict", [str(arg) for arg in args])


def test_unreadable_scan_is_left_out_and_predicted_on_resume(place, capsys, caplog):
    good, bad = place / "scans" / "scan2.nii.gz", place / "scans" / "scan1.nii.gz"
    content = bad.read_bytes()
    bad.write_bytes(content[:200])
    assert predict(place) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 3 cases could not be predicted: scan1: " in message and "--resume" in message
    assert "scan1: left out" in caplog.text
    index = read_index(place / "out")
    assert index.cases == ("scan0", "scan2") and index.missing_cases == ["scan1"] and index.failed["scan1"]
    assert predict(place) == 2
    assert "1 cases are missing there; add --resume" in capsys.readouterr().err
    bad.write_bytes(content)
    good.unlink()  # predicted cases are not read again
    before = sha256(place / "out" / "scan2" / "labels.nii.gz")
    good.write_bytes(b"")
    assert predict(place, "--resume") == 0
    index = read_index(place / "out")
    assert index.cases == ("scan0", "scan2", "scan1") and not index.missing_cases and not index.failed
    checksums = read_checksums(place / "out")
    assert {name: sha256(place / "out" / name) for name in checksums} == checksums
    assert checksums["scan2/labels.nii.gz"] == before and "patients.csv" in checksums
    assert predict(place) == 2 and "exists already" in capsys.readouterr().err


def test_interrupted_prediction_resumes_to_the_same_files(place, monkeypatch):
    assert predict(place) == 0
    (place / "out").rename(place / "whole")
    predict_case, calls = Predictor.stream, []

    def interrupt(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict_case(self, *args)

    monkeypatch.setattr(Predictor, "stream", interrupt)
    assert predict(place) == 130
    assert read_index(place / "out").missing_cases == ["scan1", "scan2"]
    assert predict(place, "--resume") == 0
    complete, resumed = read_checksums(place / "whole"), read_checksums(place / "out")
    assert {n: resumed[n] for n in complete if n != "index.json"} == {
        n: complete[n] for n in complete if n != "index.json"
    }
    assert read_index(place / "out").cases == read_index(place / "whole").cases


@pytest.mark.parametrize("after", [0, 1])
def test_case_without_index_entry_is_predicted_again(place, monkeypatch, after):
    write = prediction_writer._write_index

    def interrupt(index):
        if len(index.cases) > after:
            raise KeyboardInterrupt
        write(index)

    monkeypatch.setattr(prediction_writer, "_write_index", interrupt)
    assert predict(place) == 130
    assert len(read_index(place / "out").cases) == after
    monkeypatch.setattr(prediction_writer, "_write_index", write)
    assert predict(place, "--resume") == 0
    assert read_index(place / "out").cases == ("scan0", "scan1", "scan2")


def test_identifying_error_message_stays_out_of_the_folder(place):
    (place / "scans").rename(place / "DOE_JANE")
    (place / "DOE_JANE" / "scan1.nii.gz").write_bytes(b"no gzip")
    args = (place / "a", place / "DOE_JANE", "--modality", "CT", "--out", place / "out")
    assert cli.run("predict", [str(arg) for arg in args]) == 2
    assert "DOE" not in (place / "out" / "index.json").read_text() and read_index(place / "out").failed["scan1"]


def test_resume_with_another_model_is_refused(place, capsys):
    (place / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(place) == 2
    make_finished_run(place / "b", seed=1)
    assert predict(place, "--resume", run="b") == 2
    assert "was started with another model" in capsys.readouterr().err
    assert read_index(place / "out").cases == ("scan0", "scan1")


def test_removed_scan_is_no_longer_requested(place, capsys):
    bad = place / "scans" / "scan1.nii.gz"
    bad.write_bytes(b"")
    assert predict(place) == 2 and read_index(place / "out").missing_cases == ["scan1"]
    bad.unlink()
    assert predict(place, "--resume") == 0
    index = read_index(place / "out")
    assert index.requested == ["scan0", "scan2"] and not index.missing_cases and not index.failed
    assert {name: sha256(place / "out" / name) for name in read_checksums(place / "out")} == read_checksums(
        place / "out"
    )


@pytest.mark.parametrize("options", [["--modality", "MR"], ["--tta"]])
def test_resume_with_other_options_is_refused(place, capsys, options):
    (place / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(place) == 2
    assert predict(place, "--resume", *options) == 2
    assert f"was started with another {options[0]}" in capsys.readouterr().err.replace("uncertainty, ", "")


def test_resume_with_a_moved_model_works(place):
    (place / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(place) == 2
    (place / "a").rename(place / "moved")
    (place / "scans" / "scan2.nii.gz").unlink()
    assert predict(place, "--resume", run="moved") == 0


def scan_ref(case, day, fails=False):
    def read():
        if fails:
            raise BadInput("is damaged")
        return Volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "HU")

    return ScanRef(case, "p", day, read)


def predict_nothing(image, case):
    blank = [Volume(np.zeros(image.shape, kind), image.affine, unit) for kind, unit in KINDS]
    return Prediction(*blank, ())


KINDS = ((np.uint8, "label"), (np.float32, "probability"))
MODEL = {"run": "r", "weights_sha256": "x"}


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [
        (
            [scan_ref("a", 0, True), scan_ref("b", 30), scan_ref("c", 60, True)],
            [scan_ref("b", 30), scan_ref("c", 60)],
            {"b": 0, "c": 30},
        ),
        ([scan_ref("b", 130)], [scan_ref("a", 0), scan_ref("b", 130)], {"a": 0, "b": 130}),
        ([scan_ref("a", 0), scan_ref("b", 30)], [scan_ref("c", 60)], {"a": None, "b": None, "c": 0}),
    ],
)
def test_days_between_studies_stay_correct_on_resume(tmp_path, first, second, days):
    writer = PredictionWriter.create(tmp_path / "out", {1: "t"}, MODEL, requested=[scan.case for scan in first])
    with suppress(BadInput):
        writer.predict_all(first, predict_nothing)
    PredictionWriter.resume(tmp_path / "out", {1: "t"}, MODEL, requested=[scan.case for scan in second]).predict_all(
        second, predict_nothing
    )
    index = read_index(tmp_path / "out")
    assert {case: index.find_study(case).day for case in index.cases} == days


def test_concurrent_writers_are_refused(tmp_path):
    scan = scan_ref("a", 0)
    writer = PredictionWriter.create(tmp_path / "out", {1: "t"}, MODEL, requested=["a", "b", "c"])
    image = scan.read()
    writer = writer.add("a", image, predict_nothing(image, "a"))
    first, second = (PredictionWriter.resume(tmp_path / "out", {1: "t"}, MODEL) for _ in range(2))
    first.add("b", image, predict_nothing(image, "b"))
    for outdated in (second, PredictionWriter(writer.index)):
        with pytest.raises(BadInput, match="another process writes there"):
            outdated.add("c", image, predict_nothing(image, "c"))
    assert read_index(tmp_path / "out").cases == ("a", "b")


def test_single_unreadable_scan_fails_with_one_line(place, capsys):
    for name in ("scan1", "scan2"):
        (place / "scans" / f"{name}.nii.gz").unlink()
    (place / "scans" / "scan0.nii.gz").write_bytes(b"no gzip")
    assert predict(place) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("medssl predict: scan0: ")
    assert not (place / "out").exists()


def test_evaluate_warns_about_missing_cases(place, caplog):
    (place / "scans" / "scan2.nii.gz").write_bytes(b"")
    assert predict(place) == 2
    labels = place / "labels"
    labels.mkdir()
    for case in ("scan0", "scan1"):
        (labels / f"{case}.nii.gz").write_bytes((place / "out" / case / "labels.nii.gz").read_bytes())
    assert cli.run("evaluate", [str(place / "out"), "--labels", str(labels)]) == 0
    assert "1 of 3 cases are missing there" in caplog.text
    assert json.loads((place / "out" / "evaluation" / "summary.json").read_text())["missing"] == ["scan2"]


def test_mr_network_refuses_ct(place, capsys):
    run, metadata = place / "a", json.loads((place / "a" / "run.json").read_text())
    metadata["network"]["units"] = ["a.u."]
    (run / "run.json").chmod(0o644)
    (run / "run.json").write_text(json.dumps(metadata))
    for name in ("scan1", "scan2"):
        (place / "scans" / f"{name}.nii.gz").unlink()
    assert predict(place) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "this scan is a CT, the network was trained on other scans only; state what it is with --modality" in message
    assert not (place / "out").exists()
    args = [str(word) for word in (run, place / "scans", "--modality", "MR", "--out", place / "out")]
    assert cli.run("predict", args) == 0


def test_unwritable_folder_fails_before_prediction(place, capsys, monkeypatch):
    monkeypatch.setattr(Predictor, "stream", None)
    (place / "out").touch()
    args = (place / "a", place / "scans", "--modality", "CT", "--out", place / "out" / "p")
    assert cli.run("predict", [str(arg) for arg in args]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_device_batch_overlap_and_precision_are_options(place, capsys):
    options = ("--device", "cpu", "--batch", "3", "--overlap", "0.25", "--precision", "bf16", "--crop-body", "20")
    assert predict(place, *options) == 0
    assert read_index(place / "out").options["overlap"] == 0.25
    assert predict(place, "--resume") == 2
    assert "was started with another --overlap, --precision, --crop-body" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda:7"), "this machine has"),
        (("--device", "tpu"), "is not cpu, cuda or cuda:NUMBER"),
        (("--overlap", "1"), "an overlap of 0 to 0.9"),
        (("--batch", "0"), "a batch of at least 1"),
        (("--crop-body", "-1"), "give a margin in mm"),
    ],
)
def test_impossible_options_are_refused(place, capsys, options, message):
    assert predict(place, *options) == 2
    assert message in capsys.readouterr().err and not (place / "out").exists()


def test_a_detector_refuses_a_body_crop(place, capsys):
    make_finished_run(place / "detector", task="detect")
    assert predict(place, "--crop-body", "20", run="detector") == 2
    assert "--crop-body: only segmentations" in capsys.readouterr().err and not (place / "out").exists()

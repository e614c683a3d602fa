"""The commands `calibrate` and `suggest` on a store: what they leave, and what they refuse in a line."""

import csv
import json

import pytest

from medssl import cli
from medssl.data.checks import leakage as leaks
from medssl.data.manifest import Manifest
from medssl.inference.calibration import Calibration
from medssl.predictions_folder import read_findings, read_index
from tests.helpers.finished_runs import finished, ingested


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of seven cases, of which the last two have no label, and two finished runs."""
    place = tmp_path_factory.mktemp("calibrating")
    ingested(place, cases=7, labelled=5, shape=(22, 20, 18), bright=350, shares="train=0.5,val=0.5")
    for seed, name in enumerate("ab"):
        finished(place / name, seed)
    return place


def command(name, *words):
    return cli.run(name, [str(word) for word in words])


def test_calibrating_writes_into_the_run_what_fits_better_than_before(place, tmp_path, capsys):
    run = finished(tmp_path / "run")
    assert command("calibrate", run.path, "--manifest", place / "store" / "manifest.csv") == 0
    found = Calibration.of([run])
    held = Manifest.read(place / "store" / "manifest.csv").by("val").labelled()
    assert set(found.cases) == {case.id for case in held.cases}
    assert found.nll[1] < found.nll[0] and found.temperature != 1
    assert "temperature" in capsys.readouterr().out


def test_the_scores_of_one_or_several_detectors_are_calibrated_and_used(place, tmp_path, capsys):
    manifest, runs = place / "store" / "manifest.csv", []
    for seed in range(2):
        runs.append(finished(tmp_path / f"run{seed}", seed, task="detect").path)
    for several in (runs[:1], runs):
        out = tmp_path / str(len(several))
        assert command("calibrate", *several, "--manifest", manifest, "--out", out / "told.json") == 0
        assert "findings: temperature" in capsys.readouterr().out and (out / "told.png").stat().st_size > 5000
        found = json.loads((out / "told.json").read_text())
        assert found["nll"][1] < found["nll"][0] and len(found["weights_sha256"]) == len(several)
        told = Calibration.model_validate(found)
        words = [*several, manifest, "--split", "val"]
        assert command("predict", *words, "--out", out / "raw") == 0
        assert command("predict", *words, "--calibration", out / "told.json", "--out", out / "said") == 0
        raw, said = ([f.score for f in findings(out / name)] for name in ("raw", "said"))
        assert raw and said == pytest.approx([told.score(score) for score in raw], abs=1e-6) and raw != said


def test_the_split_to_test_on_calibrates_nothing_unless_it_is_allowed(place, tmp_path, capsys):
    run, manifest = finished(tmp_path / "run"), tmp_path / "store" / "manifest.csv"
    ingested(tmp_path, cases=2, labelled=2, shape=(22, 20, 18), bright=350, shares="test=1")
    assert command("calibrate", run.path, "--manifest", manifest, "--split", "test") == 2
    assert "what split 'test' sets cannot be tested on it; choose another --split" in capsys.readouterr().err
    assert not (run.path / "calibration.json").exists()
    assert command("calibrate", run.path, "--manifest", manifest, "--split", "test", "--allow-overlap") == 0


def test_an_evaluation_on_what_was_calibrated_on_says_so(place, tmp_path, capsys, caplog):
    run, manifest = finished(tmp_path / "run"), place / "store" / "manifest.csv"
    assert command("calibrate", run.path, "--manifest", manifest) == 0
    assert command("predict", run.path, manifest, "--split", "val", "--out", tmp_path / "p") == 0
    assert command("evaluate", tmp_path / "p", "--labels", manifest) == 0
    held = len(Calibration.of([run]).cases)
    assert f"{held} of these {held} cases: what was calibrated on them looks better here" in caplog.text


def test_nothing_to_predict_is_told_and_leaves_no_folder(place, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for scans, said in ((place / "store" / "manifest.csv", "no case in split 'test'"), (tmp_path / "empty", "no scan")):
        assert command("predict", place / "a", scans, "--out", tmp_path / "out") == 2
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def findings(folder):
    index = read_index(folder)
    return [finding for case in index.cases for finding in read_findings(index.case(case))]


def test_several_runs_share_a_file_that_only_they_may_use(place, tmp_path):
    manifest, out = place / "store" / "manifest.csv", tmp_path / "both.json"
    assert command("calibrate", place / "a", place / "b", "--manifest", manifest, "--out", out) == 0
    assert len(json.loads(out.read_text())["weights_sha256"]) == 2
    assert not (place / "a" / "calibration.json").exists()
    words = ("--calibration", out, "--split", "val", "--out", tmp_path / "predictions")
    assert command("predict", place / "a", place / "b", manifest, *words) == 0
    assert json.loads((tmp_path / "predictions" / "index.json").read_text())["temperature"] != 1
    assert command("predict", place / "a", manifest, "--calibration", out, "--out", tmp_path / "alone") == 2


def test_calibrating_on_what_a_run_learnt_from_is_refused(place, tmp_path, capsys):
    manifest, run = place / "store" / "manifest.csv", finished(tmp_path / "run")
    leaks.remember(run.path, leaks.traces(Manifest.read(manifest).by("val").labelled()))
    assert command("calibrate", run.path, "--manifest", manifest) == 2
    assert "overlaps" in capsys.readouterr().err
    assert not (run.path / "calibration.json").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["a", "b"], "--out"),
        (["a", "--sensitivity", "1.5"], "between 0 and 1"),
        (["a", "--split", "none"], "no case in split 'none'; choose another --split"),
        (["a", "--lesions", "cyst"], "its labels are organ"),
        (["a", "--lesions", "organ"], "patients with lesions"),
        (["nowhere"], "no run here"),
    ],
)
def test_what_cannot_be_calibrated_is_told_in_one_line(place, capsys, words, said):
    there = [place / word if word in ("a", "b", "nowhere") else word for word in words]
    assert command("calibrate", *there, "--manifest", place / "store" / "manifest.csv") == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not (place / "a" / "calibration.json").exists()


def test_suggesting_ranks_the_unlabelled_cases_with_reasons_and_doubts(place, tmp_path, capsys):
    store = Manifest.read(place / "store" / "manifest.csv")
    split = next(case.split for case in store.cases if not case.label)
    bare = [case.id for case in store.by(split).cases if not case.label]
    words = (place / "a", store.folder / "manifest.csv", "--split", split, "--n", len(bare))
    assert command("suggest", *words, "--out", tmp_path / "next.csv") == 0
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert {row["case"] for row in rows} == set(bare)
    assert all(0 < float(row["doubt"]) <= 1 and "in doubt" in row["reason"] for row in rows)
    assert bare[0] in capsys.readouterr().out


@pytest.mark.parametrize("n, said", [(0, "at least one"), (9, "lower --n")])
def test_more_cases_than_there_are_or_none_are_refused(place, capsys, n, said):
    store = Manifest.read(place / "store" / "manifest.csv")
    split = next(case.split for case in store.cases if not case.label)
    assert command("suggest", place / "a", store.folder / "manifest.csv", "--split", split, "--n", n) == 2
    assert said in capsys.readouterr().err


def test_what_is_there_is_not_written_over_by_a_table_or_a_calibration(place, tmp_path, capsys):
    label, manifest = tmp_path / "label.nii.gz", place / "store" / "manifest.csv"
    label.write_bytes(b"somebody's work")
    assert command("suggest", place / "a", manifest, "--out", label) == 2
    assert command("calibrate", place / "a", "--manifest", manifest, "--out", label) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == [f"choose one that ends in .{end}" for end in ("csv", "json")]
    assert label.read_bytes() == b"somebody's work" and not (place / "a" / "calibration.json").exists()


def test_classes_of_another_name_than_the_references_are_told(place, tmp_path, caplog):
    manifest = place / "store" / "manifest.csv"
    run = finished(tmp_path / "run", names={1: "tail"})
    assert command("predict", run.path, manifest, "--split", "val", "--out", tmp_path / "p") == 0
    assert command("evaluate", tmp_path / "p", "--labels", manifest) == 0
    assert f"class 1 is tail in {tmp_path / 'p'}, " in caplog.text and "by their number" in caplog.text


def test_a_damaged_run_and_a_manifest_that_is_no_table_are_one_line(place, tmp_path, capsys):
    run = finished(tmp_path / "run")
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(bytes([0x1F, 0x8B, 0, 255]))
    assert command("predict", run.path, scan, "--out", tmp_path / "out") == 2
    assert "not a table" in capsys.readouterr().err
    (run.path / "run.json").chmod(0o644)
    (run.path / "run.json").write_text("{")
    assert command("predict", run.path, place / "store" / "manifest.csv", "--out", tmp_path / "out") == 2
    assert "run.json: is damaged" in capsys.readouterr().err

"""The commands that calibrate runs and select cases: their output files and their error messages."""

import csv
import json

import numpy as np
import pytest

from medssl import cli
from medssl.data.checks import leakage as leaks
from medssl.data.ingest.read_source import read_source
from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.inference.calibration import Calibration
from medssl.models import select_cases
from medssl.predictions_folder import read_findings, read_index
from medssl.run import Run
from tests.helpers.finished_runs import ingest_store, make_finished_run


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    """Returns a folder with a store of seven cases, the last two unlabelled, and two finished runs."""
    runs_folder = tmp_path_factory.mktemp("calibrating")
    ingest_store(
        runs_folder, cases=7, labelled=5, shape=(22, 20, 18), threshold_hu=350, split_fractions="train=0.5,val=0.5"
    )
    for seed, name in enumerate("ab"):
        make_finished_run(runs_folder / name, seed)
    return runs_folder


def command(name, *args):
    return cli.run(name, [str(arg) for arg in args])


def test_calibrate_writes_a_better_fit_into_the_run(runs_folder, tmp_path, capsys):
    run = make_finished_run(tmp_path / "run")
    assert command("calibrate", run.path, "--manifest", runs_folder / "store" / "manifest.csv") == 0
    calibration = Calibration.load([run])
    held_out = Manifest.read(runs_folder / "store" / "manifest.csv").in_split("val").with_labels()
    assert set(calibration.cases) == {case.id for case in held_out.cases}
    assert calibration.nll[1] < calibration.nll[0] and calibration.temperature != 1
    assert "temperature" in capsys.readouterr().out


def test_predict_uses_calibrated_scores_of_one_or_several_detectors(runs_folder, tmp_path, capsys):
    manifest, runs = runs_folder / "store" / "manifest.csv", []
    for seed in range(2):
        runs.append(make_finished_run(tmp_path / f"run{seed}", seed, task="detect").path)
    for group in (runs[:1], runs):
        out = tmp_path / str(len(group))
        assert command("calibrate", *group, "--manifest", manifest, "--out", out / "calibration.json") == 0
        assert "findings: temperature" in capsys.readouterr().out and (out / "calibration.png").stat().st_size > 5000
        fields = json.loads((out / "calibration.json").read_text())
        assert fields["nll"][1] < fields["nll"][0] and len(fields["weights_sha256"]) == len(group)
        calibration = Calibration.model_validate(fields)
        args = [*group, manifest, "--split", "val"]
        assert command("predict", *args, "--out", out / "raw") == 0
        assert command("predict", *args, "--calibration", out / "calibration.json", "--out", out / "calibrated") == 0
        raw, calibrated = ([f.score for f in findings(out / name)] for name in ("raw", "calibrated"))
        assert (
            raw
            and calibrated == pytest.approx([calibration.calibrate_score(score) for score in raw], abs=1e-6)
            and raw != calibrated
        )


def test_split_test_is_refused_unless_overlap_is_allowed(runs_folder, tmp_path, capsys):
    run, manifest = make_finished_run(tmp_path / "run"), tmp_path / "store" / "manifest.csv"
    ingest_store(tmp_path, cases=2, labelled=2, shape=(22, 20, 18), threshold_hu=350, split_fractions="test=1")
    assert command("calibrate", run.path, "--manifest", manifest, "--split", "test") == 2
    assert (
        "a model calibrated on split 'test' cannot be tested on it; choose another --split" in capsys.readouterr().err
    )
    assert not (run.path / "calibration.json").exists()
    assert command("calibrate", run.path, "--manifest", manifest, "--split", "test", "--allow-overlap") == 0


def test_evaluate_warns_about_cases_used_for_calibration(runs_folder, tmp_path, capsys, caplog):
    run, manifest = make_finished_run(tmp_path / "run"), runs_folder / "store" / "manifest.csv"
    assert command("calibrate", run.path, "--manifest", manifest) == 0
    assert command("predict", run.path, manifest, "--split", "val", "--out", tmp_path / "p") == 0
    assert command("evaluate", tmp_path / "p", "--labels", manifest) == 0
    num_cases = len(Calibration.load([run]).cases)
    assert f"{num_cases} of these {num_cases} cases were used for calibration" in caplog.text


def test_predict_without_scans_fails_and_leaves_no_folder(runs_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for scans, message in (
        (runs_folder / "store" / "manifest.csv", "no case in split 'test'"),
        (tmp_path / "empty", "no scan"),
    ):
        assert command("predict", runs_folder / "a", scans, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def findings(folder):
    index = read_index(folder)
    return [finding for case in index.cases for finding in read_findings(index.case_folder(case))]


def test_calibration_of_several_runs_is_refused_for_other_runs(runs_folder, tmp_path):
    manifest, out = runs_folder / "store" / "manifest.csv", tmp_path / "both.json"
    assert command("calibrate", runs_folder / "a", runs_folder / "b", "--manifest", manifest, "--out", out) == 0
    assert len(json.loads(out.read_text())["weights_sha256"]) == 2
    assert not (runs_folder / "a" / "calibration.json").exists()
    args = ("--calibration", out, "--split", "val", "--out", tmp_path / "predictions")
    assert command("predict", runs_folder / "a", runs_folder / "b", manifest, *args) == 0
    assert json.loads((tmp_path / "predictions" / "index.json").read_text())["temperature"] != 1
    assert command("predict", runs_folder / "a", manifest, "--calibration", out, "--out", tmp_path / "alone") == 2


def test_calibrating_on_training_cases_is_refused(runs_folder, tmp_path, capsys):
    manifest, run = runs_folder / "store" / "manifest.csv", make_finished_run(tmp_path / "run")
    leaks.write_traces(run.path, leaks.trace_cases(Manifest.read(manifest).in_split("val").with_labels()))
    assert command("calibrate", run.path, "--manifest", manifest) == 2
    assert "overlaps" in capsys.readouterr().err
    assert not (run.path / "calibration.json").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (["a", "b"], "--out"),
        (["a", "--sensitivity", "1.5"], "between 0 and 1"),
        (["a", "--split", "none"], "no case in split 'none'; choose another --split"),
        (["a", "--lesions", "cyst"], "its labels are organ"),
        (["a", "--lesions", "organ"], "patients with lesions"),
        (["nowhere"], "no run here"),
    ],
)
def test_invalid_calibration_requests_fail_with_one_line(runs_folder, capsys, args, message):
    resolved = [runs_folder / arg if arg in ("a", "b", "nowhere") else arg for arg in args]
    assert command("calibrate", *resolved, "--manifest", runs_folder / "store" / "manifest.csv") == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert not (runs_folder / "a" / "calibration.json").exists()


def test_unlabelled_cases_are_ranked_with_reason_and_uncertainty(runs_folder, tmp_path, capsys):
    store = Manifest.read(runs_folder / "store" / "manifest.csv")
    split = next(case.split for case in store.cases if not case.label)
    unlabelled = [case.id for case in store.in_split(split).cases if not case.label]
    args = (runs_folder / "a", store.folder / "manifest.csv", "--split", split, "--count", len(unlabelled))
    assert command("suggest", *args, "--out", tmp_path / "next.csv") == 0
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert {row["case"] for row in rows} == set(unlabelled)
    assert all(0 < float(row["uncertainty"]) <= 1 and "more uncertain than" in row["reason"] for row in rows)
    assert unlabelled[0] in capsys.readouterr().out


def test_slices_are_named_on_the_grid_of_the_scanner(runs_folder, tmp_path, capsys, monkeypatch):
    store = Manifest.read(runs_folder / "store" / "manifest.csv")
    split = next(case.split for case in store.cases if not case.label)
    args = (runs_folder / "a", store.folder / "manifest.csv", "--split", split, "--count", 1, "--slices", 3)
    assert command("suggest", *args, "--out", tmp_path / "next.csv") == 0
    (row,) = csv.DictReader((tmp_path / "next.csv").read_text().splitlines())
    case = next(case for case in store.cases if case.id == row["case"])
    source, stored = read_source(case, store), Store(store).image(case)
    numbers = [int(number) for number in row["slices"].split()]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 1 and numbers[-1] <= source.shape[2]
    assert f"slices {row['slices']}; closer to" in capsys.readouterr().out
    monkeypatch.setattr(select_cases, "select_slices", lambda *_: [0, 5, stored.shape[2] - 1])
    located = select_cases.locate_slices(Run.open(runs_folder / "a"), store, [case.id], 3)[case.id]
    places = [stored.affine[2, 3] + stored.affine[2, 2] * n for n in (0, 5, stored.shape[2] - 1)]
    in_mm = source.to_mm(np.array([[0.0, 0.0, n - 1] for n in located]))[:, 2]
    assert np.abs(np.sort(in_mm) - places).max() <= source.spacing_mm()[2] / 2 + 1e-6


@pytest.mark.parametrize("n, message", [(0, "at least one case"), (9, "request fewer cases")])
def test_too_many_or_no_cases_are_refused(runs_folder, capsys, n, message):
    store = Manifest.read(runs_folder / "store" / "manifest.csv")
    split = next(case.split for case in store.cases if not case.label)
    assert command("suggest", runs_folder / "a", store.folder / "manifest.csv", "--split", split, "--count", n) == 2
    assert message in capsys.readouterr().err


def test_other_files_are_not_overwritten(runs_folder, tmp_path, capsys):
    label, manifest = tmp_path / "label.nii.gz", runs_folder / "store" / "manifest.csv"
    label.write_bytes(b"other content")
    assert command("suggest", runs_folder / "a", manifest, "--out", label) == 2
    assert command("calibrate", runs_folder / "a", "--manifest", manifest, "--out", label) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == [
        f"choose a name that ends in .{end}" for end in ("csv", "json")
    ]
    assert label.read_bytes() == b"other content" and not (runs_folder / "a" / "calibration.json").exists()


def test_evaluate_warns_about_different_class_names(runs_folder, tmp_path, caplog):
    manifest = runs_folder / "store" / "manifest.csv"
    run = make_finished_run(tmp_path / "run", names={1: "tail"})
    assert command("predict", run.path, manifest, "--split", "val", "--out", tmp_path / "p") == 0
    assert command("evaluate", tmp_path / "p", "--labels", manifest) == 0
    assert f"class 1 is tail in {tmp_path / 'p'}, " in caplog.text and "by their number" in caplog.text


def test_damaged_run_or_manifest_fails_with_one_line(runs_folder, tmp_path, capsys):
    run = make_finished_run(tmp_path / "run")
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(bytes([0x1F, 0x8B, 0, 255]))
    assert command("predict", run.path, scan, "--out", tmp_path / "out") == 2
    assert "not a table" in capsys.readouterr().err
    (run.path / "run.json").chmod(0o644)
    (run.path / "run.json").write_text("{")
    assert command("predict", run.path, runs_folder / "store" / "manifest.csv", "--out", tmp_path / "out") == 2
    assert "run.json: is damaged" in capsys.readouterr().err

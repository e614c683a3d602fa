"""After a cross-validation, `predict` and `calibrate` assign each case to the run that held it out."""

import json
from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data.checks import leakage as leaks
from medssl.data.manifest import Manifest
from medssl.data.selection.splits import assign_fold
from medssl.inference.calibration import Calibration, Threshold
from medssl.io import nifti
from medssl.models.calibrate_runs import _weaken_guarantee
from medssl.models.fold_assignment import FoldAssignment
from medssl.predictions_folder import read_index
from medssl.run import Run
from tests.helpers.finished_runs import ingest_store, make_finished_run

FOLDS = 2


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    """Returns a folder with a store of six cases, five labelled, and runs of two folds with their training traces."""
    runs_folder = tmp_path_factory.mktemp("folds")
    ingest_store(
        runs_folder, cases=6, labelled=5, shape=(20, 18, 16), threshold_hu=300, split_fractions="train=0.8,test=0.2"
    )
    manifest = Manifest.read(runs_folder / "store" / "manifest.csv")
    for fold in range(FOLDS):
        run = make_finished_run(runs_folder / f"fold{fold}", fold, fold=(fold, FOLDS, 0))
        leaks.write_traces(
            run.path, leaks.trace_cases(assign_fold(manifest, fold, FOLDS, 0).in_split("train").with_labels())
        )
    make_finished_run(runs_folder / "plain", 3)
    make_finished_run(runs_folder / "other", 3, fold=(1, FOLDS, 7))
    return runs_folder


def command(name, *args):
    return cli.run(name, [str(arg) for arg in args])


def predict_held_out(runs_folder, out):
    runs = [runs_folder / f"fold{n}" for n in range(FOLDS)]
    assert command("predict", *runs, runs_folder / "store/manifest.csv", "--split", "held-out", "--out", out) == 0
    return read_index(out)


def test_each_labelled_case_is_predicted_by_the_run_that_held_it_out(runs_folder, tmp_path):
    index = predict_held_out(runs_folder, tmp_path / "oof")
    manifest = Manifest.read(runs_folder / "store" / "manifest.csv")
    assert set(index.cases) == {c.id for c in manifest.with_labels().cases if c.split != "test"}
    for fold, entry in enumerate(index.model["runs"]):
        held_out = {case.id for case in assign_fold(manifest, fold, FOLDS, 0).in_split("val").with_labels().cases}
        assert set(entry["cases"]) == held_out and held_out
        single = tmp_path / f"alone{fold}"
        assert (
            command(
                "predict",
                runs_folder / f"fold{fold}",
                runs_folder / "scans/imagesTr",
                "--modality",
                "CT",
                "--out",
                single,
            )
            == 0
        )
        for case in held_out:
            (case_alone,) = [name for name in read_index(single).cases if name.startswith(case)]
            files = [folder / "probability.nii.gz" for folder in (index.case_folder(case), single / case_alone)]
            assert np.array_equal(*[nifti.read(file).voxels for file in files])


def test_held_out_predictions_are_evaluated_unless_a_run_was_trained_on_them(runs_folder, tmp_path, capsys):
    out = tmp_path / "oof"
    predict_held_out(runs_folder, out)
    assert command("evaluate", out, "--labels", runs_folder / "store/manifest.csv") == 0
    assert json.loads((out / "evaluation" / "summary.json").read_text())["cases"] == len(read_index(out).cases)
    index = json.loads((out / "index.json").read_text())
    first, second = index["model"]["runs"]
    first["cases"], second["cases"] = second["cases"], first["cases"]
    (out / "index.json").write_text(json.dumps(index))
    assert command("evaluate", out, "--labels", runs_folder / "store/manifest.csv", "--out", tmp_path / "wrong") == 2
    assert "overlaps" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_folds_are_calibrated_together_without_a_guarantee(runs_folder, tmp_path, task, capsys):
    runs = [make_finished_run(tmp_path / f"fold{n}", n, fold=(n, FOLDS, 0), task=task) for n in range(FOLDS)]
    args = ["--manifest", runs_folder / "store/manifest.csv", "--split", "held-out"]
    out, lesions = tmp_path / "calibration.json", ["--lesions", "organ", "--sensitivity", "0.001"]
    code = command("calibrate", *[run.path for run in runs], *args, *lesions, "--out", out)
    assert code == 0, capsys.readouterr().err
    calibration = Calibration.load(runs, out)
    assert set(calibration.cases) == set(
        FoldAssignment.for_split(runs, runs_folder / "store/manifest.csv", "held-out").run_of_case
    )
    assert "an estimate, not a guarantee, for the pooled runs" in calibration.thresholds["organ"].guarantee
    assert command("calibrate", runs[0].path, *args) == 0
    assert set(Calibration.load(runs[:1]).cases) < set(calibration.cases)


@pytest.mark.parametrize(
    "args, message",
    [
        (["plain", "store/manifest.csv"], "plain: held nothing out; finetune it with num_folds=5"),
        (["fold0", "other", "store/manifest.csv"], "its folds (num_folds, seed) differ"),
        (["fold1", "fold1", "store/manifest.csv"], "another run has fold 1 too"),
        (["fold0", "scans"], "are listed in a store's manifest.csv"),
        (
            ["fold0", "store/manifest.csv", "--calibration", "a.json"],
            "--calibration: held-out cases are predicted without calibration",
        ),
    ],
)
def test_runs_of_no_common_cross_validation_are_refused(runs_folder, tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(runs_folder)
    assert command("predict", *args, "--split", "held-out", "--out", tmp_path / "none") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_without_folds_all_runs_predict_together(runs_folder):
    runs = [Run.open(runs_folder / f"fold{n}") for n in range(FOLDS)]
    assignment = FoldAssignment.for_split(runs, runs_folder / "store/manifest.csv", "test")
    assert assignment.run_groups() == [tuple(runs)] and assignment.cases_for_run(["a", "b"], 1) == ["a", "b"]
    assert [scan.case for scan in assignment.list_scans(runs_folder / "store/manifest.csv", "test")]


def test_guarantee_of_runs_that_predict_together_is_kept():
    threshold = Threshold(threshold=0.4, sensitivity=0.9, patients=9, guarantee="of 9")
    first, second = Run(Path("a")), Run(Path("b"))
    assert (
        _weaken_guarantee(threshold, FoldAssignment((first, second)))
        == _weaken_guarantee(threshold, FoldAssignment((first,), {"c": 0}))
        == threshold
    )
    assert (
        "not a guarantee" in _weaken_guarantee(threshold, FoldAssignment((first, second), {"c": 0, "d": 1})).guarantee
    )

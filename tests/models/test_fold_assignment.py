"""After a cross-validation each case is answered for by the run that held it out, in `predict` and in `calibrate`."""

import json
from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data.checks import leakage as leaks
from medssl.data.manifest import Manifest
from medssl.inference.calibration import Calibration, Threshold
from medssl.io import nifti
from medssl.models.calibrate_runs import _estimate
from medssl.models.fold_assignment import Panel
from medssl.predictions_folder import read_index
from medssl.run import Run
from tests.helpers.finished_runs import finished, ingested

FOLDS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of five labelled cases and one without a label, and the runs of two folds, which know what they saw."""
    place = tmp_path_factory.mktemp("folds")
    ingested(place, cases=6, labelled=5, shape=(20, 18, 16), bright=300, shares="train=0.8,test=0.2")
    manifest = Manifest.read(place / "store" / "manifest.csv")
    for fold in range(FOLDS):
        run = finished(place / f"fold{fold}", fold, dealt=(fold, FOLDS, 0))
        leaks.remember(run.path, leaks.traces(manifest.fold(fold, FOLDS, 0).by("train").labelled()))
    finished(place / "plain", 3)
    finished(place / "other", 3, dealt=(1, FOLDS, 7))
    return place


def command(name, *words):
    return cli.run(name, [str(word) for word in words])


def gathered(place, out):
    runs = [place / f"fold{n}" for n in range(FOLDS)]
    assert command("predict", *runs, place / "store/manifest.csv", "--split", "held-out", "--out", out) == 0
    return read_index(out)


def test_every_labelled_case_is_predicted_once_by_the_run_that_held_it_out(place, tmp_path):
    index = gathered(place, tmp_path / "oof")
    manifest = Manifest.read(place / "store" / "manifest.csv")
    assert set(index.cases) == {c.id for c in manifest.labelled().cases if c.split != "test"}
    for fold, told in enumerate(index.model["runs"]):
        held = {case.id for case in manifest.fold(fold, FOLDS, 0).by("val").labelled().cases}
        assert set(told["cases"]) == held and held
        alone = tmp_path / f"alone{fold}"
        assert (
            command("predict", place / f"fold{fold}", place / "scans/imagesTr", "--modality", "CT", "--out", alone) == 0
        )
        for case in held:
            (same,) = [name for name in read_index(alone).cases if name.startswith(case)]
            files = [folder / "probability.nii.gz" for folder in (index.case(case), alone / same)]
            assert np.array_equal(*[nifti.read(file).voxels for file in files])


def test_what_was_held_out_is_evaluated_and_a_case_in_a_wrong_hand_is_refused(place, tmp_path, capsys):
    out = tmp_path / "oof"
    gathered(place, out)
    assert command("evaluate", out, "--labels", place / "store/manifest.csv") == 0
    assert json.loads((out / "evaluation" / "summary.json").read_text())["cases"] == len(read_index(out).cases)
    told = json.loads((out / "index.json").read_text())
    first, second = told["model"]["runs"]
    first["cases"], second["cases"] = second["cases"], first["cases"]
    (out / "index.json").write_text(json.dumps(told))
    assert command("evaluate", out, "--labels", place / "store/manifest.csv", "--out", tmp_path / "wrong") == 2
    assert "overlaps" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_folds_are_calibrated_together_on_what_each_held_out_and_nothing_is_promised(place, tmp_path, task, capsys):
    runs = [finished(tmp_path / f"fold{n}", n, dealt=(n, FOLDS, 0), task=task) for n in range(FOLDS)]
    words = ["--manifest", place / "store/manifest.csv", "--split", "held-out"]
    out, least = tmp_path / "told.json", ["--lesions", "organ", "--sensitivity", "0.001"]
    said = command("calibrate", *[run.path for run in runs], *words, *least, "--out", out)
    assert said == 0, capsys.readouterr().err
    found = Calibration.of(runs, out)
    assert set(found.cases) == set(Panel.of(runs, place / "store/manifest.csv", "held-out").owner)
    assert "no promise, for the runs together" in found.thresholds["organ"].promise
    assert command("calibrate", runs[0].path, *words) == 0
    assert set(Calibration.of(runs[:1]).cases) < set(found.cases)


@pytest.mark.parametrize(
    "words, said",
    [
        (["plain", "store/manifest.csv"], "plain: held nothing out; finetune it with folds=5"),
        (["fold0", "other", "store/manifest.csv"], "folds dealt otherwise"),
        (["fold1", "fold1", "store/manifest.csv"], "fold 1 was given before"),
        (["fold0", "scans"], "is told by a store's manifest.csv"),
        (["fold0", "store/manifest.csv", "--calibration", "a.json"], "--calibration: what was held out"),
    ],
)
def test_what_is_no_cross_validation_is_refused_in_a_line(place, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(place)
    assert command("predict", *words, "--split", "held-out", "--out", tmp_path / "none") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_without_folds_all_runs_answer_together(place):
    runs = [Run.open(place / f"fold{n}") for n in range(FOLDS)]
    panel = Panel.of(runs, place / "store/manifest.csv", "test")
    assert panel.groups() == [tuple(runs)] and panel.answers(["a", "b"], 1) == ["a", "b"]
    assert [scan.case for scan in panel.scans(place / "store/manifest.csv", "test")]


def test_the_promise_of_runs_that_answer_together_stands():
    told = Threshold(threshold=0.4, sensitivity=0.9, patients=9, promise="of 9")
    one, two = Run(Path("a")), Run(Path("b"))
    assert _estimate(told, Panel((one, two))) == _estimate(told, Panel((one,), {"c": 0})) == told
    assert "no promise" in _estimate(told, Panel((one, two), {"c": 0, "d": 1})).promise

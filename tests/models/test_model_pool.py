"""Runs predict alone or pooled, calibrated or not, and the index records it."""

import json

import numpy as np
import pytest

from medssl import cli
from medssl.inference.calibration import Calibration, Threshold
from medssl.io import nifti
from medssl.predictions_folder import read_index
from tests.helpers.finished_runs import make_finished_run, write_scans


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    """Returns a folder with two runs, a third one with other classes, and scans."""
    folder = tmp_path_factory.mktemp("members")
    make_finished_run(folder / "a", 0)
    make_finished_run(folder / "b", 1)
    make_finished_run(folder / "sides", 2, flip=(True, False, False), names={1: "left lung"})
    write_scans(folder / "scans", 1)
    return folder


def predict(runs_folder, out, *args):
    return cli.run(
        "predict", [*(str(arg) for arg in args), str(runs_folder / "scans"), "--modality", "CT", "--out", str(out)]
    )


def probability(folder):
    return nifti.read(next(folder.glob("*/probability.nii.gz"))).voxels / 255


def test_pooled_runs_and_tta_write_their_disagreement(runs_folder, tmp_path):
    assert predict(runs_folder, tmp_path / "one", runs_folder / "a") == 0
    assert predict(runs_folder, tmp_path / "two", runs_folder / "b") == 0
    assert predict(runs_folder, tmp_path / "both", runs_folder / "a", runs_folder / "b") == 0
    index = read_index(tmp_path / "both")
    assert index.uncertainty == "disagreement of runs" and index.temperature == 1
    assert [first["run"] for first in index.model["runs"]] == [str(runs_folder / "a"), str(runs_folder / "b")]
    (case,) = index.cases
    disagreement = nifti.read(index.case_folder(case) / "uncertainty.nii.gz").voxels
    first, second, both = (probability(tmp_path / name) for name in ("one", "two", "both"))
    assert np.abs(both - (first + second) / 2).max() < 0.01
    assert np.corrcoef(disagreement.ravel(), np.abs(first - second).ravel())[0, 1] > 0.8
    assert disagreement.dtype == np.uint8 and disagreement.max() > 0
    assert not list((tmp_path / "one").glob("*/uncertainty.nii.gz")) and read_index(tmp_path / "one").uncertainty == ""
    assert cli.run("verify", [str(tmp_path / "both"), "--workers", "0"]) == 0
    assert predict(runs_folder, tmp_path / "mirrored", runs_folder / "a", "--tta") == 0
    assert read_index(tmp_path / "mirrored").uncertainty == "disagreement of mirrored views"


def test_calibrated_run_predicts_with_its_temperature(runs_folder, tmp_path):
    run = make_finished_run(tmp_path / "run", 0)
    assert predict(runs_folder, tmp_path / "plain", run.path) == 0
    threshold = Threshold(threshold=0.4, sensitivity=0.9, patients=9, guarantee="of 9")
    weights = (run.metadata["weights_sha256"],)
    for temperature in (3.0, 1.0):
        Calibration(temperature=temperature, weights_sha256=weights, thresholds={"organ": threshold}).write([run])
        assert predict(runs_folder, tmp_path / str(temperature), run.path) == 0
    plain, uncalibrated, flattened = (probability(tmp_path / name) for name in ("plain", "1.0", "3.0"))
    assert np.array_equal(plain, uncalibrated)
    is_unsaturated = (plain > 0.05) & (plain < 0.95)
    logits, tempered_logits = (np.log(p[is_unsaturated] / (1 - p[is_unsaturated])) for p in (plain, flattened))
    assert np.polyfit(logits, tempered_logits, 1)[0] == pytest.approx(1 / 3, rel=0.1)
    index = json.loads((tmp_path / "3.0" / "index.json").read_text())
    assert (index["temperature"], index["thresholds"], index["guarantee"]) == (3.0, {"organ": 0.4}, {"organ": "of 9"})
    assert cli.run("verify", [str(run.path), "--workers", "0"]) == 0


@pytest.mark.parametrize(
    "runs, options, message",
    [
        (["a", "sides"], [], "its labels differ from"),
        (["a", "none"], [], "no run here"),
        (["sides"], ["--tta"], "predict without --tta"),
        (["a", "b"], ["--calibration", "none.json"], "no such file"),
    ],
)
def test_incompatible_runs_are_refused(runs_folder, tmp_path, capsys, runs, options, message):
    out = tmp_path / "out"
    assert predict(runs_folder, out, *(runs_folder / run for run in runs), *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()

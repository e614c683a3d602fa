"""Finished runs predict alone or together, calibrated or not, and say in the index how."""

import json

import numpy as np
import pytest

from medssl import cli
from medssl.inference.calibration import Calibration, Threshold
from medssl.io import nifti
from medssl.predictions_folder import read_index
from tests.helpers.finished_runs import finished, scans


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, one on other classes, and a folder of scans."""
    place = tmp_path_factory.mktemp("members")
    finished(place / "a", 0)
    finished(place / "b", 1)
    finished(place / "sides", 2, flip=(True, False, False), names={1: "left lung"})
    scans(place / "scans", 1)
    return place


def predict(made, out, *words):
    return cli.run("predict", [*(str(w) for w in words), str(made / "scans"), "--modality", "CT", "--out", str(out)])


def probability(folder):
    return nifti.read(next(folder.glob("*/probability.nii.gz"))).voxels / 255


def test_two_runs_in_mirrored_views_tell_where_they_disagree(made, tmp_path):
    assert predict(made, tmp_path / "one", made / "a") == 0
    assert predict(made, tmp_path / "two", made / "b") == 0
    assert predict(made, tmp_path / "both", made / "a", made / "b") == 0
    index = read_index(tmp_path / "both")
    assert index.uncertainty == "disagreement of runs" and index.temperature == 1
    assert [one["run"] for one in index.model["runs"]] == [str(made / "a"), str(made / "b")]
    (case,) = index.cases
    apart = nifti.read(index.case(case) / "uncertainty.nii.gz").voxels
    one, two, both = (probability(tmp_path / name) for name in ("one", "two", "both"))
    assert np.abs(both - (one + two) / 2).max() < 0.01
    assert np.corrcoef(apart.ravel(), np.abs(one - two).ravel())[0, 1] > 0.8
    assert apart.dtype == np.uint8 and apart.max() > 0
    assert not list((tmp_path / "one").glob("*/uncertainty.nii.gz")) and read_index(tmp_path / "one").uncertainty == ""
    assert cli.run("verify", [str(tmp_path / "both"), "--workers", "0"]) == 0
    assert predict(made, tmp_path / "mirrored", made / "a", "--mirror") == 0
    assert read_index(tmp_path / "mirrored").uncertainty == "disagreement of mirrored views"


def test_a_calibrated_run_predicts_with_its_temperature_and_the_index_says_so(made, tmp_path):
    run = finished(tmp_path / "run", 0)
    assert predict(made, tmp_path / "plain", run.path) == 0
    told = Threshold(threshold=0.4, sensitivity=0.9, patients=9, promise="of 9")
    weights = (run.card["weights_sha256"],)
    for temperature in (3.0, 1.0):
        Calibration(temperature=temperature, weights_sha256=weights, thresholds={"organ": told}).write([run])
        assert predict(made, tmp_path / str(temperature), run.path) == 0
    plain, one, hot = (probability(tmp_path / name) for name in ("plain", "1.0", "3.0"))
    assert np.array_equal(plain, one)
    some = (plain > 0.05) & (plain < 0.95)
    logits, cooled = (np.log(p[some] / (1 - p[some])) for p in (plain, hot))
    assert np.polyfit(logits, cooled, 1)[0] == pytest.approx(1 / 3, rel=0.1)
    index = json.loads((tmp_path / "3.0" / "index.json").read_text())
    assert (index["temperature"], index["thresholds"], index["promise"]) == (3.0, {"organ": 0.4}, {"organ": "of 9"})
    assert cli.run("verify", [str(run.path), "--workers", "0"]) == 0


@pytest.mark.parametrize(
    "runs, more, said",
    [
        (["a", "sides"], [], "another labels than"),
        (["a", "none"], [], "no run here"),
        (["sides"], ["--mirror"], "predict without --mirror"),
        (["a", "b"], ["--calibration", "none.json"], "no such file"),
    ],
)
def test_runs_that_do_not_go_together_are_refused_in_a_line(made, tmp_path, capsys, runs, more, said):
    out = tmp_path / "out"
    assert predict(made, out, *(made / run for run in runs), *more) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()

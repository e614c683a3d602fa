"""A published run predicts exactly as the original from any folder, and reveals no case."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from medssl import cli
from medssl.errors import BadInput
from medssl.files import sha256
from medssl.inference.calibration import Calibration
from medssl.models.model_card import ModelCardFacts, render_model_card
from medssl.models.publish import publish, read_evaluation
from medssl.run import Run
from tests.helpers.finished_runs import make_finished_run, write_scans

OTHER_MACHINE = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
SECRET = ("scan-of-Ms-Doe", "Doe")


def predict(run, folder, out):
    args = [str(run), str(folder / "scans"), "--modality", "CT", "--out", str(out)]
    assert cli.run("predict", args) == 0
    return {p.parent.name + "/" + p.name: sha256(p) for p in out.glob("*/*.nii.gz")}


@pytest.fixture(scope="module")
def published_model(tmp_path_factory):
    """Returns predictions of a calibrated run and its published folder, moved, after removal of the run."""
    folder = tmp_path_factory.mktemp("published")
    write_scans(folder / "scans")
    run = make_finished_run(folder / "runs" / "Doe", cases=list(SECRET), manifest="0" * 64)
    (run.path / "pool.npz").write_text(json.dumps(SECRET))
    Calibration(temperature=1.7, weights_sha256=(run.metadata["weights_sha256"],), cases=SECRET).write([run])
    before = predict(run.path, folder, folder / "before")
    assert cli.run("publish", [str(run.path), "--out", str(folder / "given")]) == 0
    shutil.copytree(folder / "given", folder / "elsewhere" / "model")
    shutil.rmtree(folder / "given")
    shutil.rmtree(folder / "runs")
    return folder, folder / "elsewhere" / "model", before


def test_moved_model_predicts_the_same_bytes_without_the_run(published_model, tmp_path):
    folder, model, before = published_model
    after = predict(model, folder, tmp_path / "after")
    assert before == after and len(before) == 6


@pytest.mark.slow
def test_labels_do_not_depend_on_threads_or_cpu_instructions(published_model, tmp_path):
    data, folder, before = published_model
    args = ["predict", str(folder), str(data / "scans"), "--modality", "CT", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "medssl.cli", *args]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | OTHER_MACHINE)
    for path in (tmp_path / "out").glob("*/labels.nii.gz"):
        assert sha256(path) == before[f"{path.parent.name}/labels.nii.gz"]


def test_folder_holds_the_expected_files_without_cases_and_paths(published_model):
    _, folder, _ = published_model
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "SHA256SUMS", "calibration.json", "config.yaml", "run.json", "weights.safetensors",
    }  # fmt: skip
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not any(word.encode() in content for word in ("scan-of", "private", "/tmp", "elsewhere")), path
    assert Run.open(folder).metadata["labelled_volumes"] == 2
    assert cli.run("verify", [str(folder), "--workers", "0"]) == 0


def test_card_states_use_data_metrics_calibration_and_limits(tmp_path):
    run = make_finished_run(tmp_path / "run", cases=["a"])
    score = {"mean": 0.81, "low": 0.7, "high": 0.9}
    scores = dict.fromkeys(("dice", "nsd", "hd95_mm", "volume_error_ml"), score)
    summary = {
        "model": {"weights_sha256": run.metadata["weights_sha256"], "run": "/home/doe"},
        "cases": 12,
        "labels": {"organ": scores},
    }
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps(summary | {"lesions": {}, "ece": 0.02}))
    facts = ModelCardFacts(title="Organs", intended_use="Counting organs.", limits="No children.", licence="CC-BY-4.0")
    publish(run, tmp_path / "out", facts, read_evaluation(tmp_path / "evaluation", run))
    card = (tmp_path / "out" / "README.md").read_text()
    expected = [
        "# Organs",
        "Research use only",
        "Counting organs.",
        "No children.",
        "CC-BY-4.0",
        "0.810 [0.700, 0.900]",
    ]
    expected += ["On 12 cases", "are few", "Not calibrated", "1 labelled volumes", "## Intended use", "0.0200"]
    assert [text for text in expected if text not in card] == []
    assert "/home/doe" not in (tmp_path / "out" / "evaluation.json").read_text()


def render_card(normalization, task="segment", calibration=None, settings=(), **metadata):
    """Returns the card of a run with an intensity normalization."""
    network = {
        "labels": {1: "organ"},
        "spacing_mm": None,
        "in_channels": 1,
        "normalization": normalization,
        "task": {"name": task},
    }
    fields = {"network": network, "labelled_volumes": 4, "version": "0", "weights_sha256": "0"}
    return render_model_card(fields | metadata, dict(settings), ModelCardFacts(), calibration or Calibration(), None)


def test_card_states_initial_weights_and_alarm():
    assert "Initialized with random weights." in render_card({}) and "Alarm" not in render_card({})
    assert "Initialized with a pretraining without labels." in render_card({}, settings={"pretrained": "p"})
    assert "Initialized with a pretraining without labels." in render_card({}, start="pretrain")
    card = render_card({}, settings={"pretrained": "p"}, start="finetune", alarm="the network never predicts organ")
    assert "Initialized with an earlier finetuning" in card
    assert "\n- Alarm raised by the training: the network never predicts organ.\n" in card


@pytest.mark.parametrize("key", ["start", "alarm"])
def test_start_and_alarm_are_published(tmp_path, key):
    run = make_finished_run(tmp_path / "run")
    card = json.loads((run.path / "run.json").read_text()) | {key: "finetune"}
    (run.path / "run.json").write_text(json.dumps(card))
    publish(run, tmp_path / "out", ModelCardFacts())
    assert Run.open(tmp_path / "out").metadata[key] == "finetune"


def test_card_states_the_intensity_normalization():
    plain = render_card({})
    assert "- CT is clipped to the window -1000 .. 1000 HU." in plain
    assert "scaled from the 0.5 % to the 99.5 % percentile inside the body of each scan.\n" in plain
    landmarks = [n / 10 for n in range(1, 10)]
    normalization = {
        "window_hu": (-160, 240),
        "landmarks": [[], landmarks, landmarks],
        "percentiles": (1, 99),
        "hu_channels": [0],
    }
    card = render_card(normalization)
    assert "- CT (channels 0) is clipped to the window -160 .. 240 HU." in card
    assert "from the 1 % to the 99 % percentile" in card
    assert "the deciles of channels 1, 2 are then mapped to the training landmarks" in card


def test_card_of_a_detector_states_its_calibration():
    calibration = Calibration(
        measured="findings", temperature=1.5, offset=-0.7, weights_sha256=("0",), cases=("a", "b")
    )
    card = render_card({}, "detect", calibration)
    assert card.startswith("# Detection of organ")
    assert "findings: temperature 1.500 and offset -0.700 on 2 cases" in card


def test_invalid_runs_and_evaluations_are_refused(tmp_path):
    run = make_finished_run(tmp_path / "run")
    other = {"model": {"weights_sha256": "0" * 64}}
    (tmp_path / "summary.json").write_text(json.dumps(other))
    with pytest.raises(BadInput, match="other weights"):
        read_evaluation(tmp_path, run)
    with pytest.raises(BadInput, match="no evaluation"):
        read_evaluation(tmp_path / "none", run)
    with pytest.raises(BadInput, match="exists already"):
        publish(run, tmp_path / "run", ModelCardFacts())
    card = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(card | {"state": "open"}))
    with pytest.raises(BadInput, match="not finished"):
        publish(run, tmp_path / "out", ModelCardFacts())
    assert not (tmp_path / "out").exists()

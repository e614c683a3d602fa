"""A published run predicts as the run did, wherever it lies, and gives no case away."""

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
from medssl.models.model_card import Facts, text
from medssl.models.publish import evaluated, publish
from medssl.run import Run
from tests.helpers.finished_runs import finished, scans

OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
SECRET = ("scan-of-Ms-Doe", "Doe")


def predicted(run, place, out):
    words = [str(run), str(place / "scans"), "--modality", "CT", "--out", str(out)]
    assert cli.run("predict", words) == 0
    return {p.parent.name + "/" + p.name: sha256(p) for p in out.glob("*/*.nii.gz")}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What a calibrated run predicted, and the run published at a place from where it was moved; the run is gone."""
    place = tmp_path_factory.mktemp("published")
    scans(place / "scans")
    run = finished(place / "runs" / "Doe", cases=list(SECRET), manifest="0" * 64)
    (run.path / "pool.json").write_text(json.dumps(SECRET))
    Calibration(temperature=1.7, weights_sha256=(run.card["weights_sha256"],), cases=SECRET).write([run])
    before = predicted(run.path, place, place / "before")
    assert cli.run("export", [str(run.path), "--out", str(place / "given")]) == 0
    shutil.copytree(place / "given", place / "elsewhere" / "model")
    shutil.rmtree(place / "given")
    shutil.rmtree(place / "runs")
    return place, place / "elsewhere" / "model", before


def test_it_predicts_the_same_bytes_from_another_place_without_the_run(published, tmp_path):
    place, folder, before = published
    after = predicted(folder, place, tmp_path / "after")
    assert before == after and len(before) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "told", [{"OMP_NUM_THREADS": "2"}, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}]
)
def test_labels_are_the_same_bytes_on_other_threads_and_other_instructions(published, tmp_path, told):
    """As near as one machine comes to another one."""
    place, folder, before = published
    words = ["predict", str(folder), str(place / "scans"), "--modality", "CT", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "medssl.cli", *words]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | told)
    for path in (tmp_path / "out").glob("*/labels.nii.gz"):
        assert sha256(path) == before[f"{path.parent.name}/labels.nii.gz"]


def test_it_holds_what_it_should_and_names_no_case_and_no_path(published):
    _, folder, _ = published
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "SHA256SUMS", "calibration.json", "config.yaml", "run.json", "weights.safetensors",
    }  # fmt: skip
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not any(word.encode() in content for word in ("scan-of", "private", "/tmp", "elsewhere")), path
    assert Run.open(folder).card["labelled_volumes"] == 2
    assert cli.run("verify", [str(folder), "--workers", "0"]) == 0


def test_the_card_tells_use_data_metrics_with_intervals_calibration_and_limits(tmp_path):
    run = finished(tmp_path / "run", cases=["a"])
    score = {"mean": 0.81, "low": 0.7, "high": 0.9}
    scores = dict.fromkeys(("dice", "nsd", "hd95_mm", "volume_error_ml"), score)
    told = {
        "model": {"weights_sha256": run.card["weights_sha256"], "run": "/home/doe"},
        "cases": 12,
        "labels": {"organ": scores},
    }
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps(told | {"lesions": {}, "ece": 0.02}))
    facts = Facts(title="Organs", intended_use="Counting organs.", limits="No children.", licence="CC-BY-4.0")
    publish(run, tmp_path / "out", facts, evaluated(tmp_path / "evaluation", run))
    card = (tmp_path / "out" / "README.md").read_text()
    wanted = ["# Organs", "Research use only", "Counting organs.", "No children.", "CC-BY-4.0", "0.810 [0.700, 0.900]"]
    wanted += ["On 12 cases", "are few", "Not calibrated", "1 labelled volumes", "## Intended use", "0.0200"]
    assert [w for w in wanted if w not in card] == []
    assert "/home/doe" not in (tmp_path / "out" / "evaluation.json").read_text()


def carded(recipe, task="segment", calibration=None, settings=(), **more):
    """The card of a run with a recipe."""
    network = {"labels": {1: "organ"}, "spacing_mm": None, "in_channels": 1, "recipe": recipe, "task": {"name": task}}
    facts = {"network": network, "labelled_volumes": 4, "version": "0", "weights_sha256": "0"}
    return text(facts | more, dict(settings), Facts(), calibration or Calibration(), None)


def test_the_card_says_what_the_weights_were_before_and_what_they_never_say():
    assert "Started from weights drawn at random." in carded({}) and "never says" not in carded({})
    assert "Started from a pretraining without labels." in carded({}, settings={"pretrained": "p"})
    assert "Started from a pretraining without labels." in carded({}, start="pretrain")
    said = carded({}, settings={"pretrained": "p"}, start="finetune", alarm="never says organ")
    assert "Started from a finetuning with labels" in said and "\n- It never says organ.\n" in said


@pytest.mark.parametrize("key", ["start", "alarm"])
def test_what_limits_a_run_is_published_with_it(tmp_path, key):
    run = finished(tmp_path / "run")
    card = json.loads((run.path / "run.json").read_text()) | {key: "finetune"}
    (run.path / "run.json").write_text(json.dumps(card))
    publish(run, tmp_path / "out", Facts())
    assert Run.open(tmp_path / "out").card[key] == "finetune"


def test_the_card_says_how_values_became_input():
    plain = carded({})
    assert "- CT is windowed to -1000 .. 1000 HU." in plain
    assert "scaled from the 0.5 % to the 99.5 % percentile of each scan's own body.\n" in plain
    row = [n / 10 for n in range(1, 10)]
    fitted = {"window_hu": (-160, 240), "landmarks": [[], row, row], "percentiles": (1, 99), "hu_channels": [0]}
    said = carded(fitted)
    assert "- CT (of several channels, these: 0) is windowed to -160 .. 240 HU." in said
    assert "from the 1 % to the 99 % percentile" in said
    assert "the deciles of channels 1, 2 are brought to landmarks of its pool" in said


def test_the_card_of_a_detector_says_what_was_calibrated():
    told = Calibration(measured="findings", temperature=1.5, offset=-0.7, weights_sha256=("0",), cases=("a", "b"))
    card = carded({}, "detect", told)
    assert card.startswith("# Detection of organ")
    assert "findings: temperature 1.500 and offset -0.700 on 2 cases" in card


def test_what_cannot_be_published_is_told_in_one_line(tmp_path):
    run = finished(tmp_path / "run")
    other = {"model": {"weights_sha256": "0" * 64}}
    (tmp_path / "summary.json").write_text(json.dumps(other))
    with pytest.raises(BadInput, match="other weights"):
        evaluated(tmp_path, run)
    with pytest.raises(BadInput, match="no evaluation"):
        evaluated(tmp_path / "none", run)
    with pytest.raises(BadInput, match="exists already"):
        publish(run, tmp_path / "run", Facts())
    card = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(card | {"state": "open"}))
    with pytest.raises(BadInput, match="not finished"):
        publish(run, tmp_path / "out", Facts())
    assert not (tmp_path / "out").exists()

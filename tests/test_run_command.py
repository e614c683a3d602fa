"""One command from a folder of scans to one page, which goes on where it stopped."""

import json
import shutil
from pathlib import Path

import pytest

from medssl import cli
from medssl.data.phantoms import datasets
from medssl.planning import choose_settings
from medssl.run import Run

NAMES = ("encoder", "pretrained", "scratch")


@pytest.mark.slow
def test_the_whole_path_in_one_command(tmp_path, capsys, monkeypatch):
    datasets.write_demo_folder(tmp_path / "scans", 0, 8, 1, (24, 24, 24), 12.0)
    out = tmp_path / "project"
    run = cli.load_script("run")
    monkeypatch.setattr(run, "TRAINING_FRACTIONS", {"pretrain": 1e-6, "finetune": 1e-6})
    monkeypatch.setattr(run, "STOP_FACTOR", 1e6)
    monkeypatch.setattr(choose_settings, "STEPS_PER_EPOCH", 4)
    words = [str(tmp_path / "scans"), "--out", str(out), "--hours", "1", "--memory", "1", "--device", "cpu"]
    assert cli.run("run", words, debug=True) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ingest, plan, pretrain") and "take at most 1 h together" in printed.splitlines()[0]
    assert "done already" not in printed and printed.splitlines()[-1].startswith(
        f"next: medssl review {out}/predictions/"
    )
    page = (out / "report.html").read_text()
    assert "from the pretraining" in page and "data:image/png;base64," in page and "medssl review" in page
    runs = [Run.open(out / "runs" / name) for name in NAMES]
    assert len({json.dumps([r.metadata["network"]["encoder"], r.metadata["network"]["patch_size"]]) for r in runs}) == 1
    assert [r.read_settings().get("pretrained") for r in runs[1:]] == [f"{out}/runs/encoder", None]

    weights = [r.weights.stat().st_mtime_ns for r in runs]
    case = _leave_unfinished(out / "predictions" / "scratch")
    (out / "report.html").unlink()
    assert cli.run("run", words, debug=True) == 0
    assert capsys.readouterr().out.count("done already") == 8
    assert (out / "predictions" / "scratch" / case / "labels.nii.gz").is_file()
    assert (out / "report.html").read_text() == page
    assert [r.weights.stat().st_mtime_ns for r in runs] == weights

    assert cli.run("run", [*words, "--hours", "3"]) == 2
    assert capsys.readouterr().err.count("was started with hours 1.0, not 3.0") == 1


def _leave_unfinished(predictions: Path) -> str:
    """Leaves predictions as a process does that is killed before the last case, and returns that case."""
    contents = json.loads((predictions / "index.json").read_text())
    case = contents["cases"].pop()["id"]
    (predictions / "index.json").write_text(json.dumps(contents))
    shutil.rmtree(predictions / case)
    shutil.rmtree(predictions / "evaluation")
    return case


def test_the_trainings_stop_within_the_hours():
    run = cli.load_script("run")
    assert run.STOP_FACTOR * (run.TRAINING_FRACTIONS["pretrain"] + 2 * run.TRAINING_FRACTIONS["finetune"]) <= 1


@pytest.mark.parametrize(
    "options, text",
    [([], "no-scans: "), (["--hours", "0"], "--hours 0: "), (["--memory=-1"], "--memory -1: ")],
)
def test_bad_input_is_one_line(tmp_path, capsys, options, text):
    words = [str(tmp_path / "no-scans"), "--out", str(tmp_path / "project"), *options]
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", *words])
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (tmp_path / "project" / "project.json").exists()


def test_labels_that_cannot_be_scored_are_refused_before_training(tmp_path, capsys):
    datasets.write_demo_folder(tmp_path / "scans", 0, 1, 0, (24, 24, 24), 12.0)
    assert cli.run("run", [str(tmp_path / "scans"), "--out", str(tmp_path / "project")]) == 2
    error = capsys.readouterr().err
    assert "split 'test' has no labelled case" in error and not (tmp_path / "project" / "runs").exists()

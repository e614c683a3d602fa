"""What the demo promises: nodules are found, and the review app opens on them."""

import json
import sys

import pytest

from medssl import cli
from medssl.predictions_folder import read_findings, read_index


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_finds_the_nodules_of_held_out_scans(tmp_path):
    demo = cli.load_script("demo")
    demo.make_store(tmp_path, seed=0)
    predictions = demo.train_and_score(tmp_path, "nodules", "configs/demo/nodules.yaml")
    scores = json.loads((predictions / "evaluation" / "summary.json").read_text())["lesions"]["nodule"]
    assert scores["lesions"] >= 10
    assert scores["sensitivity"]["1"]["estimate"] > 0.8
    findings = [finding for case in read_index(predictions).cases for finding in read_findings(predictions / case)]
    assert findings and {finding.name for finding in findings} == {"nodule"}


@pytest.mark.slow
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_gets_the_review_app_with_its_tour(tmp_path, monkeypatch, is_terminal):
    demo = cli.load_script("demo")
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "_run_command", lambda *words: commands.append(words))
    monkeypatch.setattr(demo, "_print_summary", lambda out: None)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    demo.main(["--quick", "--out", str(tmp_path / "demo")])
    review = ("review", f"{tmp_path / 'demo'}/predictions/nodules", "--demo")
    assert (commands[-1] == review) is is_terminal
    assert [name for name, *_ in commands].count("finetune") == 3

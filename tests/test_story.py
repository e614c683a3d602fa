"""Runs the commands of the README on simulated scans, up to a second training set."""

import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data.manifest import Manifest
from medssl.data.phantoms import datasets as phantom
from medssl.io import nifti
from medssl.predictions_folder import read_findings, read_index
from medssl.review.event import Act
from medssl.review.event_store import EventStore, get_default_database
from medssl.run import Run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
SMALL = {
    "pretrain": [
        "train.epochs=2",
        "train.steps_per_epoch=2",
        "train.batch_size=2",
        "patch_size=[32,32,32]",
        "encoder.channels=[4,8,8,16]",
    ],
    "finetune": ["train.epochs=2", "train.steps_per_epoch=2", "patch_size=[32,32,32]", "encoder.channels=[4,8,8,16]"],
}
pytestmark = pytest.mark.slow


def commands() -> list[list[str]]:
    """Returns the README commands for own scans, split into words."""
    rows = [row.partition("#")[0] for block in BLOCKS for row in block.splitlines() if row.startswith("medssl ")]
    return [shlex.split(row)[1:] for row in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with scans, in which the README's commands were run up to `evaluate`."""
    folder = tmp_path_factory.mktemp("story")
    phantom.write_demo_folder(folder / "scans", 0, 8, 3, (40, 40, 40), 7.0)
    paths = {"SCANS": "scans", "SCANS_OR_MANIFEST": "store/manifest.csv"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, *words in commands():
            if name not in ("review", "feedback"):
                code = cli.run(name, [paths.get(w, w) for w in words] + SMALL.get(name, []), debug=True)
                assert code == 0, (name, words)
        yield folder


def test_the_readme_begins_with_the_demo_and_names_every_step():
    assert "make demo" in "\n".join(README.splitlines()[:20])
    assert "Research use only. Not for clinical use." in README
    names = [name for name, *_ in commands()]
    assert names == ["ingest", "pretrain", "finetune", "predict", "evaluate", "review", "feedback"]


def test_predictions_stand_on_the_scanners_own_grid(place):
    index, manifest = read_index(place / "predictions"), Manifest.read(place / "store" / "manifest.csv")
    assert set(index.cases) == {case.id for case in manifest.in_split("test").cases}
    for case in index.cases:
        image = nifti.read(index.case_folder(case) / "image.nii.gz")
        labels = nifti.read(index.case_folder(case) / "labels.nii.gz", label=True)
        assert labels.require_same_grid(image) is labels
        assert labels.orientation() == image.orientation()


def test_runs_keep_what_made_them_and_start_from_each_other(place):
    encoder, organs = Run.open(place / "runs" / "spark"), Run.open(place / "runs" / "organs")
    assert encoder.is_closed and organs.is_closed
    assert {row["status"] for row in organs.metadata["transfer"]} == {"loaded", "skipped"}
    parts = {status: {row["key"].partition(".")[0] for row in organs.metadata["transfer"] if row["status"] == status}
             for status in ("loaded", "skipped")}  # fmt: skip
    assert parts == {"loaded": {"encoder"}, "skipped": {"decoder", "heads"}}
    assert list((encoder.path / "previews").glob("*.png"))


def test_no_patient_is_in_two_splits(place):
    cases = Manifest.read(place / "store" / "manifest.csv").cases
    assert len({(c.patient, c.split) for c in cases}) == len({c.patient for c in cases})


def test_what_was_reviewed_becomes_a_training_set_that_trains(place, monkeypatch):
    monkeypatch.chdir(place)
    index = read_index(place / "predictions")
    store, case = EventStore(get_default_database(index.folder)), index.cases[0]
    findings = read_findings(index.case_folder(case))
    acts = ["reject", *["accept"] * (len(findings) - 1)]
    for n, (finding, action) in enumerate(zip(findings, acts, strict=True)):
        store.record(
            Act(session="s", number=n, case=case, reviewer="r", role="senior", action=action, finding=finding.id)
        )
    store.record(Act(session="s", number=len(acts), case=case, reviewer="r", role="senior", action="sign"))
    assert cli.run("feedback", ["predictions", "--out", "corrected"], debug=True) == 0
    assert cli.run("ingest", ["corrected", "--out", "store2"], debug=True) == 0
    again = Manifest.read(place / "store2" / "manifest.csv")
    assert len(again.with_labels().cases) == 1
    label = nifti.read(next((place / "corrected").rglob("labelsTr/*.nii.gz")), label=True)
    before = nifti.read(index.case_folder(case) / "labels.nii.gz", label=True)
    gone = np.count_nonzero(before.voxels) - np.count_nonzero(label.voxels)
    assert gone * before.voxel_ml() == pytest.approx(findings[0].volume_ml, rel=1e-3)
    words = ["configs/finetune/segment.yaml", "manifest=store2/manifest.csv", "run=runs/again", "val_every_n_epochs=9"]
    words += [
        "allow_missing_classes=true"
    ]  # of one case's classes, a network that learnt this little may have found but some
    assert cli.run("finetune", [*words, *SMALL["finetune"]], debug=True) == 0


def test_the_review_app_answers(place):
    port = "8947"
    command = [sys.executable, "-m", "medssl.cli", "review", "predictions", "--port", port]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as app:
        try:
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                        assert answer.status == 200
                    break
                except OSError:
                    assert app.poll() is None, app.stdout.read()
                    time.sleep(0.5)
            else:
                pytest.fail("the app did not answer within two minutes")
        finally:
            app.terminate()


def test_make_demo_is_the_demo():
    process = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True)
    assert "medssl.cli demo" in process.stdout

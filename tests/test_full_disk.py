"""A disk that is full, really: one line, exit code 2, nothing half-written, and the same command goes on later."""

import numpy as np
import pytest

from benchmarks._small_disk import mount_disk
from medssl import cli
from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.io import nifti
from medssl.predictions_folder import read_index
from medssl.volume import Volume
from tests.helpers.finished_runs import make_finished_run

SIDE = 40
SMALL = (
    "encoder.channels=4,8", "encoder.strides=1,2", "patch_size=16", "train.epochs=2", "train.steps_per_epoch=1",
    "train.batch_size=1", "train.num_workers=0",
)  # fmt: skip


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcdef":
        voxels = rng.integers(-1000, 1000, (SIDE, SIDE, SIDE)).astype(np.int16)
        nifti.write(Volume(voxels, np.eye(4), "HU"), tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def disk(tmp_path):
    """What changes the size of the disk that is mounted on `disk`."""
    with mount_disk(tmp_path / "disk", 60) as resize:
        if resize is None:
            pytest.skip("mounting a disk needs root")
        yield resize


@pytest.fixture
def run_until_full(tmp_path, capsys):
    """Runs a command that fills the disk and must say so."""

    def run(*words):
        code = cli.run(words[0], [str(word) for word in words[1:]])
        message = capsys.readouterr().err
        assert code == 2, message
        assert "no space left on the disk" in message.strip().splitlines()[-1] and "Traceback" not in message
        assert not list(tmp_path.rglob(".part-*")), "a part of a file is left"

    return run


def test_ingestion(scans, disk, tmp_path, run_until_full):
    words = ["ingest", scans, "--out", tmp_path / "disk" / "store", "--modality", "CT", "--workers", "0"]
    disk(300)
    run_until_full(*words)
    disk(20_000)
    assert cli.run("ingest", [str(word) for word in words[1:]]) == 0
    manifest = Manifest.read(tmp_path / "disk" / "store" / "manifest.csv")
    store = Store(manifest)
    assert len(manifest.cases) == 6
    assert all(store.image(case).shape == (SIDE,) * 3 for case in manifest.cases)


def test_pretraining(scans, disk, tmp_path, run_until_full):
    assert cli.run("ingest", [str(scans), "--out", str(tmp_path / "store"), "--modality", "CT", "--workers", "0"]) == 0
    run = tmp_path / "disk" / "run"
    words = ["pretrain", "configs/pretrain/spark.yaml", f"manifest={tmp_path}/store/manifest.csv", f"run={run}", *SMALL]
    run_until_full(*words)
    disk(20_000)
    assert cli.run("pretrain", [*words[1:], "resume=true"]) == 0
    assert (run / "weights.safetensors").is_file()


def test_prediction(scans, disk, tmp_path, run_until_full):
    make_finished_run(tmp_path / "run")
    out = tmp_path / "disk" / "predictions"
    words = ["predict", tmp_path / "run", scans, "--out", out, "--modality", "CT"]
    disk(700)
    run_until_full(*words)
    index = read_index(out)
    assert 0 < len(index.cases) < 6 and not index.failed
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(index.cases)
    disk(50_000)
    assert cli.run("predict", [*(str(word) for word in words[1:]), "--resume"]) == 0
    assert len(read_index(out).cases) == 6

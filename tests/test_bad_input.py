"""Bad input, as a user meets it: one clear line, exit code 2, no traceback, nothing half-written."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.io import nifti
from medssl.volume import Volume

CT = Volume(np.random.default_rng(0).integers(-1000, 1000, (16, 16, 16)).astype(np.int16), np.eye(4), "HU")
LABEL = Volume((CT.voxels > 0).astype(np.uint8), CT.affine, "label")


def decathlon(folder: Path, images: str = "ab", labels: str = "ab", listed: str = "ab") -> Path:
    """A small labelled data set, with images, labels or entries left out."""
    for name in images:
        nifti.write(CT, folder / "imagesTr" / f"{name}.nii.gz")
    for name in labels:
        nifti.write(LABEL, folder / "labelsTr" / f"{name}.nii.gz")
    rows = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in listed]
    description = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "bright"}, "training": rows}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def manifest(tmp_path) -> Path:
    """The manifest of a store of two labelled cases, both for training."""
    scans, out = decathlon(tmp_path / "scans"), tmp_path / "store"
    assert cli.run("ingest", [str(scans), "--out", str(out), "--split-fractions", "train=1", "--workers", "0"]) == 0
    return out / "manifest.csv"


@pytest.fixture
def run_refused(capsys, tmp_path):
    """Runs a command that must be refused, and returns its one line."""

    def run(name: str, *words: object, leaves: Path | None = None) -> str:
        capsys.readouterr()
        code = cli.run(name, [str(word) for word in words])
        message = capsys.readouterr().err
        assert code == 2, message
        assert "Traceback" not in message
        assert leaves is None or not leaves.exists(), f"left {leaves} behind"
        assert not list(tmp_path.rglob(".part-*"))
        return message.strip().splitlines()[-1]

    return run


def test_an_empty_folder(run_refused, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "store"
    assert "empty" in run_refused("ingest", tmp_path / "empty", "--out", out, leaves=out)


def test_a_folder_that_is_not_there(run_refused, tmp_path):
    assert "no such folder" in run_refused("ingest", tmp_path / "none", "--out", tmp_path / "s", leaves=tmp_path / "s")


def test_files_that_cannot_be_read(run_refused, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "store"
    scans.mkdir()
    (scans / "torn.nii.gz").write_bytes(b"\x1f\x8b\x08 not much of a gzip file")
    message = run_refused("ingest", scans, "--out", out, "--workers", "0", leaves=out)
    assert "none of its 1 cases can be used" in message


@pytest.mark.parametrize(
    "left_out, reason",
    [({"images": "a"}, "b.nii.gz"), ({"labels": "a"}, "b.nii.gz")],
    ids=["label without image", "image without label"],
)
def test_half_a_case_is_refused_in_the_ledger_and_the_others_are_kept(left_out, reason, tmp_path):
    scans, out = decathlon(tmp_path / "scans", **left_out), tmp_path / "store"
    assert cli.run("ingest", [str(scans), "--out", str(out), "--no-deidentify", "--workers", "0"]) == 0
    rows = (out / "ledger.csv").read_text().splitlines()
    assert any(reason in row and ",refused," in row for row in rows)
    assert len((out / "manifest.csv").read_text().splitlines()) == 2


def test_wrong_config_keys_are_reported_all_at_once(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    words = (f"manifest={manifest}", f"run={run}", "train.epoch=3", "train.lr=-1", "objective.mask_ratio=2")
    message = run_refused("pretrain", "configs/pretrain/spark.yaml", *words, leaves=run)
    assert all(part in message for part in ("train.epoch", "train.lr", "objective.mask_ratio"))


def test_an_unknown_objective_lists_the_known(run_refused, manifest):
    message = run_refused(
        "pretrain", "configs/pretrain/spark.yaml", f"manifest={manifest}", "run=r", "objective.name=sparks"
    )
    assert "known: " in message and "vicreg" in message


def test_a_crop_that_does_not_divide_or_has_too_few_cells(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    words = (
        "configs/pretrain/spark.yaml",
        f"manifest={manifest}",
        "train.epochs=1",
        "train.steps_per_epoch=1",
        f"run={run}",
    )
    assert "total stride" in run_refused("pretrain", *words, "patch_size=[20,16,16]", leaves=run)
    assert "patches" in run_refused("pretrain", *words, "patch_size=[16,16,16]", leaves=run)


def test_a_pool_smaller_than_a_batch(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    words = ("configs/pretrain/spark.yaml", f"manifest={manifest}", f"run={run}", "train.batch_size=3")
    assert "has 2 cases, a batch takes 3" in run_refused("pretrain", *words, leaves=run)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_volume_with_a_voxel_that_is_no_number(run_refused, manifest, tmp_path):
    folder = manifest.parent
    cases = Manifest.read(manifest)
    bad = cases.cases[1]
    voxels = np.random.default_rng(1).random((1, 16, 16, 16)).astype(np.float16)
    voxels[0, 8, 8, 8] = np.nan
    cases.path(bad).unlink()
    store.write(folder / bad.image, Volume(voxels, np.eye(4), "a.u."), {})
    words = (
        f"manifest={manifest}",
        f"run={tmp_path / 'run'}",
        "patch_size=[16,16,16]",
        "train.batch_size=2",
        "train.epochs=1",
    )
    message = run_refused(
        "pretrain", "configs/pretrain/inpaint.yaml", *words, "train.steps_per_epoch=1", "encoder.channels=[4,8,8,8]"
    )
    assert message.endswith(
        f"{bad.id}: voxels are not finite (NaN or infinity); correct the image and run ingest again"
    )


def test_a_run_that_exists_is_not_touched(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("kept")
    words = ("configs/finetune/segment.yaml", f"manifest={manifest}", f"run={run}", "patch_size=[16,16,16]")
    message = run_refused("finetune", *words)
    assert "exists already" in message and [p.name for p in run.iterdir()] == ["mine.txt"]


def test_a_checkpoint_that_is_missing(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    words = ("configs/finetune/segment.yaml", f"manifest={manifest}", f"run={run}")
    assert "no run here" in run_refused("finetune", *words, f"pretrained={tmp_path / 'none'}", leaves=run)
    out = tmp_path / "predictions"
    assert "no run here" in run_refused("predict", tmp_path / "none", manifest, "--out", out, leaves=out)


def test_dates_of_a_store_that_knows_none(run_refused, manifest, tmp_path):
    out = tmp_path / "predictions"
    assert "a store holds no dates" in run_refused("predict", tmp_path, manifest, "--dates", "--out", out, leaves=out)


def test_weights_of_others_that_are_none(run_refused, tmp_path):
    run, scrap = tmp_path / "run", tmp_path / "scrap.pth"
    scrap.write_bytes(b"no weights at all")
    faults = {
        tmp_path / "none.pth": "no such checkpoint",
        scrap: "holds objects other than tensors, or is damaged",
        tmp_path: "not a MONAI bundle",
    }
    for path, why in faults.items():
        assert why in run_refused("import-weights", path, "--out", run, "--licence", "CC0", leaves=run)
    out = tmp_path / "out.pth"
    assert "no run here" in run_refused("export-weights", tmp_path, "--to", "nnunet", "--out", out, leaves=out)


def test_an_unknown_encoder_lists_the_known(run_refused, manifest):
    message = run_refused("pretrain", "configs/pretrain/spark.yaml", f"manifest={manifest}", "run=r", "encoder=vgg")
    known = "convnext, dynunet, fusion, plainconv, primus, resenc, residual, segresnet, swinunetr, wavelet"
    assert f"encoder: 'vgg' is unknown; known: {known}" in message


def test_more_labels_than_there_are(run_refused, manifest, tmp_path):
    run = tmp_path / "run"
    message = run_refused(
        "finetune", "configs/finetune/segment.yaml", f"manifest={manifest}", f"run={run}", "num_labelled=9", leaves=run
    )
    assert "9 labelled cases requested, 2 available" in message


def test_a_manifest_or_predictions_that_are_not_there(run_refused, tmp_path):
    assert "medssl ingest" in run_refused("pretrain", "configs/pretrain/spark.yaml", "manifest=none.csv", "run=r")
    assert "medssl predict" in run_refused("evaluate", tmp_path / "none", "--labels", tmp_path)
    assert "medssl predict" in run_refused("review", tmp_path / "none")


def test_a_full_disk(run_refused, tmp_path, monkeypatch):
    scans, out = decathlon(tmp_path / "scans"), tmp_path / "store"

    def full(path: Path, *_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(store, "write", full)
    assert "no space left" in run_refused("ingest", scans, "--out", out, "--workers", "0")
    assert not list(out.rglob("*.b2nd"))
    monkeypatch.undo()
    assert cli.run("ingest", [str(scans), "--out", str(out), "--workers", "0"]) == 0


def test_labelled_cases_that_are_refused_end_ingestion_with_exit_code_2(run_refused, tmp_path):
    scans, out = decathlon(tmp_path / "scans", images="abc", labels="abc", listed="abc"), tmp_path / "store"
    for name in "ab":
        moved = Volume(LABEL.voxels, LABEL.affine + np.array([[0, 0, 0, 40.0], *[[0.0] * 4] * 3]), "label")
        nifti.write(moved, scans / "labelsTr" / f"{name}.nii.gz")
    message = run_refused("ingest", scans, "--out", out, "--workers", "0")
    assert "2 of 3 labelled cases were refused: 2 because: " in message and "grid" in message
    assert "store.private/files.csv names the files" in message
    assert len(Manifest.read(out / "manifest.csv").cases) == 1

"""Scans are aligned with their reports, and then ranked by sentences that no label stands behind."""

import csv

import numpy as np
import pytest

from medssl import cli
from medssl.io import nifti
from medssl.volume import Volume
from tests.helpers.text_encoders import write_text_encoder

SIDE = 16
SMALL = ["encoder.channels=[4,8]", "encoder.strides=[1,2]", "encoder.blocks=[1,1]", "patch_size=16"]
TRAIN = ["train.epochs=2", "train.steps_per_epoch=40", "train.lr=0.01", "objective.width=16", "objective.strength=0"]
SICK, FINE = "There is a nodule in the lung.", "No nodule."


def write_scans(folder, count, first=0):
    """Writes noisy scans, every second one with a bright cube in a corner of its own, and their reports."""
    for number in range(first, first + count):
        draw = np.random.default_rng(number)
        voxels = draw.normal(100, 10, (SIDE, SIDE, SIDE))
        if number % 2:
            i, j, k = draw.integers(1, 9, 3)
            voxels[i : i + 6, j : j + 6, k : k + 6] += 200
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        folder.mkdir(parents=True, exist_ok=True)
        nifti.write(Volume(voxels.astype(np.float32), affine, "a.u."), folder / f"scan{number}.nii.gz")
        (folder / f"scan{number}.txt").write_text(f"The heart is normal. {SICK if number % 2 else FINE}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store, its encoded reports and a pretraining on both."""
    folder = tmp_path_factory.mktemp("reports")
    write_text_encoder(folder / "text")
    write_scans(folder / "scans", 20)
    assert run("ingest", folder / "scans", "--out", folder / "store", "--modality", "MR", "--workers", 0) == 0
    store, reports = folder / "store" / "manifest.csv", folder / "reports.npz"
    assert run("encode-reports", store, "--text-encoder", folder / "text", "--out", reports) == 0
    words = [f"manifest={store}", f"run={folder / 'run'}", f"objective.reports={reports}", *SMALL, *TRAIN]
    assert run("pretrain", "configs/pretrain/report_align.yaml", *words) == 0
    write_scans(folder / "others", 10, first=100)
    return folder


def run(name, *words):
    return cli.run(name, [str(word) for word in words])


def test_a_sentence_ranks_new_scans_and_says_where_it_fits(folder, tmp_path, capsys):
    words = ["--text-encoder", folder / "text", "--find", "nodule in the lung", "--against", "no nodule"]
    words += ["--modality", "MR"]
    assert run("prompt", folder / "run", folder / "others", *words, "--out", tmp_path / "scores.csv") == 0
    with (tmp_path / "scores.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 10 and {row["prompt"] for row in rows} == {"nodule in the lung"}
    assert [int(row["case"][-1]) % 2 for row in rows] == [1] * 5 + [0] * 5, "those with a cube come first"
    assert float(rows[4]["score"]) > 0 > float(rows[5]["score"])
    assert str(tmp_path / "scores.csv") in capsys.readouterr().out


def test_the_command_prints_what_comes_next(folder, tmp_path, capsys):
    words = [folder / "store" / "manifest.csv", "--text-encoder", folder / "text", "--out", tmp_path / "again.npz"]
    assert run("encode-reports", *words) == 0
    printed = capsys.readouterr().out
    assert "40 sentences of 20 of 20 cases, 16 dimensions" in printed
    assert "objective.reports=" in printed and "objective.width=16" in printed


def test_other_runs_and_text_encoders_are_refused(folder, tmp_path, capsys):
    find = ["--find", "nodule", "--out", tmp_path / "scores.csv", "--text-encoder"]
    other = write_text_encoder(tmp_path / "other", seed=1)
    assert run("prompt", folder / "run", folder / "others", *find, other) == 2
    assert "is another text encoder than that of" in capsys.readouterr().err
    words = [f"manifest={folder / 'store' / 'manifest.csv'}", f"run={tmp_path / 'mae'}", *SMALL]
    assert run("pretrain", "configs/pretrain/mae.yaml", *words, "train.epochs=1", "train.steps_per_epoch=1") == 0
    assert run("prompt", tmp_path / "mae", folder / "others", *find, folder / "text") == 2
    assert "was not trained with reports" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()

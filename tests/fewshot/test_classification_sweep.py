"""Classification runs through the whole path: a sweep over pretrainings, prediction, evaluation and calibration."""

import csv
import json

import numpy as np
import pytest

from medssl import cli
from medssl.fewshot.sweep import Arm, Sweep, run_sweep
from medssl.files import write_json
from medssl.inference.calibration import Calibration
from medssl.io import nifti
from medssl.predictions_folder import read_findings, read_index
from medssl.run import Run
from medssl.volume import Volume
from tests.helpers.blobs import draw_balls

SIZE = {"encoder.channels": [4, 8, 8], "encoder.strides": [1, 2, 2], "encoder.blocks": [1, 1, 1], "patch_size": 16}
LENGTH = {"train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 2}
ARMS = {
    "scratch": Arm(),
    "spark": Arm(pretrain="configs/pretrain/spark.yaml"),
    "contrastive": Arm(pretrain="configs/pretrain/global_local.yaml"),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A store of 12 scans, every other one with a bright ball."""
    folder, draw = tmp_path_factory.mktemp("classify"), np.random.default_rng(0)
    for n in range(12):
        label = draw_balls((16, 16, 16), [((8, 7, 8), 3)] if n % 2 else [])
        image = Volume((draw.normal(100, 20, label.shape) + 80 * label).astype(np.float32), np.eye(4), "a.u.")
        drawing = Volume(label.astype(np.uint8), np.eye(4), "label")
        for name, volume in (("imagesTr", image), ("labelsTr", drawing)):
            nifti.write(volume, folder / "scans" / name / f"case{n}.nii.gz")
    write_json(
        folder / "scans" / "dataset.json", {"labels": {"0": "background", "1": "lesion"}, "modality": {"0": "MRI"}}
    )
    args = [folder / "scans", "--out", folder / "store", "--split-fractions", "train=0.5,test=0.5", "--workers", 0]
    assert cli.run("ingest", [str(arg) for arg in args]) == 0
    return folder / "store" / "manifest.csv"


@pytest.fixture(scope="module")
def sweep(manifest, tmp_path_factory):
    settings = Sweep(
        out=tmp_path_factory.mktemp("sweep") / "out", manifest=manifest, arms=ARMS, num_labelled=(2, 4), seeds=(0,),
        finetune_config="configs/finetune/classify.yaml", lesions=("lesion",), pretraining=SIZE | LENGTH,
        changes=SIZE | LENGTH | {"max_val_cases": 0, "allow_missing_classes": True},
    )  # fmt: skip
    return settings, run_sweep(settings, lambda message: None)


def test_arms_are_compared_by_the_auroc_of_the_class_over_fewer_labels(sweep):
    rows = [row for row in sweep[1].rows if row.structure == "lesion" and row.metric == "AUROC"]
    assert [(row.arm, row.num_labelled) for row in rows] == [(arm, count) for count in (2, 4) for arm in ARMS]
    assert all(0 <= row.score.estimate <= 1 and row.cases == 6 for row in rows)
    with (sweep[0].out / "table.csv").open() as handle:
        assert {row["metric"] for row in csv.DictReader(handle)} >= {"AUROC"}


def test_a_classification_predicts_evaluates_and_calibrates(sweep, manifest, tmp_path):
    run, out = sweep[0].out / "cells" / "spark-k4-s0" / "run", tmp_path / "predictions"
    commands = [
        ["predict", run, manifest, "--split", "test", "--out", out],
        ["evaluate", out, "--labels", manifest, "--lesions", "lesion"],
    ]
    for name, *args in commands:
        assert cli.run(name, [str(arg) for arg in args]) == 0
    summary = json.loads((out / "evaluation" / "summary.json").read_text())
    assert 0 <= summary["lesions"]["lesion"]["auroc"]["estimate"] <= 1
    index = read_index(out)
    assert all(read_findings(index.case_folder(case)) for case in index.cases), "every case has an answer"
    calibration_file = tmp_path / "calibration.json"
    args = [run, "--manifest", manifest, "--split", "test", "--allow-overlap", "--out", calibration_file]
    assert cli.run("calibrate", [str(arg) for arg in args]) == 0
    calibration = Calibration.load([Run.open(run)], calibration_file)
    assert calibration.measured == "findings" and calibration.nll[1] <= calibration.nll[0]


def test_labels_of_a_table_are_learnt_predicted_evaluated_and_swept(manifest, tmp_path):
    scans, store, run, out = manifest.parents[1] / "scans", *(tmp_path / name for name in ("store", "run", "out"))
    table = tmp_path / "labels.csv"
    rows = [f"case{n},{'ball' if n % 2 else 'blank'}" for n in range(12)]
    table.write_text("\n".join(["case,label", *rows]))
    settings = SIZE | LENGTH | {"allow_missing_classes": True}
    splits = ["--split-fractions", "train=0.5,test=0.5", "--workers", 0]
    commands = [
        ["ingest", scans / "imagesTr", "--case-labels", table, "--out", store, "--no-deidentify", *splits],
        ["finetune", "configs/finetune/classify.yaml", f"manifest={store}/manifest.csv", f"run={run}",
         *(f"{key}={value}" for key, value in settings.items())],
        ["predict", run, store / "manifest.csv", "--split", "test", "--out", out],
        ["evaluate", out, "--labels", store / "manifest.csv"],
    ]  # fmt: skip
    for name, *args in commands:
        assert cli.run(name, [str(arg) for arg in args]) == 0
    lesions = json.loads((out / "evaluation" / "summary.json").read_text())["lesions"]
    assert {name: 0 <= scores["auroc"]["estimate"] <= 1 for name, scores in lesions.items()} == {
        "ball": True, "blank": True,
    }  # fmt: skip
    swept = run_sweep(
        Sweep(
            out=tmp_path / "sweep", manifest=store / "manifest.csv", num_labelled=(2,), seeds=(0,), lesions=("ball",),
            finetune_config="configs/finetune/classify.yaml", changes=settings | {"max_val_cases": 0},
        ),
        lambda message: None,
    )  # fmt: skip
    assert not swept.failures and [row.cases for row in swept.rows if row.metric == "AUROC"] == [6]


def test_a_probe_compares_frozen_features_with_untrained_ones(sweep, manifest, capsys):
    runs = [sweep[0].out / "pretrained" / name for name in ("spark", "contrastive")]
    args = [*runs, "--manifest", manifest, "--num-labelled", 5, "--draws", 2]
    assert cli.run("probe", [str(arg) for arg in args]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    layers = ["before the head", "after layer 1 of the head", "after layer 2 of the head"]
    features = [(runs[0], "encoder, all levels"), *((runs[1], name) for name in ["encoder, all levels", *layers])]
    assert [(row[0], row[1]) for row in rows] == [(str(run), name) for run, name in features]
    assert all(0 <= float(score) <= 1 for row in rows for score in (*row[2:4], *row[5:7]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draws", 1], "give at least 1 labelled volume and 2 draws"),
        (["--num-labelled", 0], "give at least 1 labelled volume and 2 draws"),
        (["--num-labelled", 2, "--draws", 2], "2 labelled volumes of a draw hold no class"),
        (["--num-labelled", 99], "split train has 6 labelled cases, the probe needs 99"),
    ],
)
def test_a_probe_without_volumes_or_draws_is_refused(sweep, manifest, capsys, options, message):
    args = [sweep[0].out / "pretrained" / "spark", "--manifest", manifest, *options]
    assert cli.run("probe", [str(arg) for arg in args]) == 2
    assert message in capsys.readouterr().err

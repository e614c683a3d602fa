"""A pretraining starts with fresh weights, from a finished encoder, or from the plateau of another training."""

import pytest
import torch
from safetensors.torch import load_file

from medssl import config
from medssl.data.checks import leakage
from medssl.data.manifest import Manifest
from medssl.data.selection.splits import assign_fold
from medssl.errors import BadInput
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig, pretrain
from tests.helpers.finished_runs import ingest_store
from tests.helpers.toy_training import write_store


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store")


def make_config(folder, manifest, name, objective, **changes) -> PretrainConfig:
    values = {
        "run": str(folder / name), "manifest": str(manifest), "objective": objective, "patch_size": [16, 16, 16],
        "encoder": {"channels": [4, 8], "strides": [1, 2]}, "train": {"epochs": 1, "steps_per_epoch": 2}, **changes,
    }  # fmt: skip
    return config.check(values, PretrainConfig, "test")


STAGE = {"name": "global_local", "queue_size": 4, "num_regions": 2, "width": 4}


def test_the_local_stage_stands_on_the_finished_encoder_of_the_global_one(tmp_path, manifest):
    first = pretrain(make_config(tmp_path, manifest, "first", STAGE | {"stage": "global"}))
    local = make_config(tmp_path, manifest, "second", STAGE | {"stage": "local"}, start_from=str(first.path))
    second = pretrain(local)
    a, b = load_file(first.weights), load_file(second.weights)
    assert {name.partition(".")[0] for name in a} == {"encoder"}
    assert {name.partition(".")[0] for name in b} == {"encoder", "decoder"}
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert {entry["status"] for entry in second.metadata["transfer"]} == {"loaded"}
    assert len(leakage.read_traces(second.path)) == 2 * len(leakage.read_traces(first.path))


def test_a_local_stage_without_a_finished_encoder_is_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match=r"never changes its encoder.*start_from=RUN"):
        pretrain(make_config(tmp_path, manifest, "run", STAGE | {"stage": "local"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["distil", {"name": "sum", "weights": {"mae": 1, "distil": 1}}])
def test_a_distillation_needs_the_encoder_of_an_earlier_training(tmp_path, manifest, objective):
    with pytest.raises(BadInput, match=r"distil compares with the encoder of an earlier training; give start_from=RUN"):
        pretrain(make_config(tmp_path, manifest, "run", objective))
    first = pretrain(make_config(tmp_path, manifest, "first", "mae"))
    assert pretrain(make_config(tmp_path, manifest, "second", objective, start_from=str(first.path))).is_finished


def test_a_pretraining_continues_from_the_plateau_of_another(tmp_path, manifest):
    train_options = {"epochs": 1, "steps_per_epoch": 4, "schedule": "infinite"}
    train_options |= {"warmup_fraction": 0.25, "decay_fraction": 0.25, "anneal_fraction": 0.25}
    first = pretrain(make_config(tmp_path, manifest, "first", "mae", train=train_options))
    train_options |= {"seed": 1, "steps_per_epoch": 2, "anneal_fraction": 0.5}
    changes = {"train": train_options, "continue_from": str(first.path)}
    second = pretrain(make_config(tmp_path, manifest, "second", "mae", **changes))
    steps = [load_file(run.path / "plateau.safetensors")["optimizer/step/head.conv.weight"] for run in (first, second)]
    assert steps == [3, 4]
    with pytest.raises(
        BadInput, match=r"differs from the one to train; give encoder.name=residual encoder.channels=\[4,8\]"
    ):
        pretrain(
            make_config(tmp_path, manifest, "third", "mae", **changes, encoder={"channels": [8, 8], "strides": [1, 2]})
        )


def test_a_pretraining_for_a_fold_uses_no_patient_of_the_held_out_fold(tmp_path):
    ingest_store(
        tmp_path, cases=6, labelled=5, shape=(20, 18, 16), threshold_hu=300, split_fractions="train=0.8,test=0.2"
    )
    manifest = tmp_path / "store" / "manifest.csv"
    folds = {"num_folds": 2, "fold": 1, "seed": 3}
    train_options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1}
    fold = pretrain(make_config(tmp_path, manifest, "fold", "mae", train=train_options, **folds))
    whole = pretrain(make_config(tmp_path, manifest, "whole", "mae", train=train_options))
    held_out = {case.id for case in assign_fold(Manifest.read(manifest), 1, 2, 3).in_split("val").cases}
    training_cases = [{trace.id for trace in leakage.read_traces(run.path)} for run in (fold, whole)]
    assert held_out and not held_out & training_cases[0] and held_out <= training_cases[1]
    values = {"manifest": manifest, "patch_size": [16, 16, 16], "encoder": {"channels": [4, 8], "strides": [1, 2]}}
    values |= {"train": train_options, "max_val_cases": 0, "allow_missing_classes": True} | folds
    configs = [
        config.check(values | {"run": tmp_path / f"on-{run.path.name}", "pretrained": run.path}, FinetuneConfig, "test")
        for run in (fold, whole)
    ]
    finetune(configs[0])
    with pytest.raises(BadInput, match=r"overlaps between .*whole"):
        finetune(configs[1])


def test_contradicting_starts_are_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match="give one of them"):
        make_config(tmp_path, manifest, "run", "mae", start_from="a", continue_from="b")
    with pytest.raises(BadInput, match=r"also give train\.schedule=infinite"):
        make_config(tmp_path, manifest, "run", "mae", continue_from="b")


@pytest.mark.parametrize(
    ("objective", "patch_size", "message"),
    [
        ("inpaint", [18, 17, 16], r"crop \(18, 17, 16\) is not divisible .* use \(18, 18, 16\)"),
        ("mae", [4, 4, 4], "8 patches .* masking needs 16"),
        ("spark", [4, 4, 4], "8 patches .* masking needs 16"),
        ("sum", [4, 4, 4], "8 patches .* masking needs 16"),
    ],
)
def test_a_crop_that_nothing_can_be_learnt_from_is_refused_before_a_run_begins(
    objective, patch_size, message, tmp_path, manifest
):
    with pytest.raises(BadInput, match=message):
        pretrain(make_config(tmp_path, manifest, "run", objective, patch_size=patch_size))
    assert not (tmp_path / "run").exists()


def test_a_pool_smaller_than_a_batch_is_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match=r"'train' has 3 cases, a batch takes 4 .*lower train\.batch_size"):
        pretrain(
            make_config(tmp_path, manifest, "run", "mae", train={"epochs": 1, "steps_per_epoch": 1, "batch_size": 4})
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["global_local", "vicreg", "sum"])
def test_crops_whose_positions_are_compared_are_not_augmented(objective, tmp_path, manifest):
    with pytest.raises(BadInput, match=f"{objective} compares positions in the scan, which augmentation would move"):
        pretrain(make_config(tmp_path, manifest, "run", objective, augment={}))
    assert not (tmp_path / "run").exists()


def test_crops_to_reconstruct_can_be_augmented(tmp_path, manifest):
    plain, augmented = ({}, {"augment": {"probability": 1.0}})
    losses = [
        pretrain(make_config(tmp_path, manifest, str(n), "mae", **changes)).metadata["scores"]["loss"]
        for n, changes in enumerate((plain, augmented))
    ]
    assert losses[0] != losses[1]

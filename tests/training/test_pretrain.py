"""A pretraining begins afresh, on a finished encoder, or where another left its plateau."""

import pytest
import torch
from safetensors.torch import load_file

from medssl import config
from medssl.data.checks import leakage as leaks
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.training.finetune import Finetune, finetune
from medssl.training.pretrain import Pretrain, pretrain
from tests.helpers.finished_runs import ingested
from tests.helpers.toy_training import shelf


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return shelf(tmp_path_factory.mktemp("data") / "store")


def settings(folder, manifest, name, objective, **more) -> Pretrain:
    given = {
        "run": str(folder / name), "manifest": str(manifest), "objective": objective, "crop": [16, 16, 16],
        "encoder": {"channels": [4, 8], "strides": [1, 2]}, "plan": {"epochs": 1, "steps": 2}, **more,
    }  # fmt: skip
    return config.check(given, Pretrain, "test")


STAGE = {"name": "global_local", "queue": 4, "regions": 2, "width": 4}


def test_the_local_stage_stands_on_the_finished_encoder_of_the_global_one(tmp_path, manifest):
    first = pretrain(settings(tmp_path, manifest, "first", STAGE | {"stage": "global"}))
    local = settings(tmp_path, manifest, "second", STAGE | {"stage": "local"}, start_from=str(first.path))
    second = pretrain(local)
    a, b = load_file(first.weights), load_file(second.weights)
    assert {name.partition(".")[0] for name in a} == {"encoder"}
    assert {name.partition(".")[0] for name in b} == {"encoder", "decoder"}
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert {entry["fate"] for entry in second.card["transfer"]} == {"loaded"}
    assert len(leaks.recall(second.path)) == 2 * len(leaks.recall(first.path))


def test_a_local_stage_without_a_finished_encoder_is_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match=r"never moves its encoder.*start_from=RUN"):
        pretrain(settings(tmp_path, manifest, "run", STAGE | {"stage": "local"}))
    assert not (tmp_path / "run").exists()


def test_a_pretraining_goes_on_from_the_plateau_of_another(tmp_path, manifest):
    plan = {"epochs": 1, "steps": 4, "schedule": "infinite", "warmup": 0.25, "cooldown": 0.25, "anneal": 0.25}
    first = pretrain(settings(tmp_path, manifest, "first", "mae", plan=plan))
    more = {"plan": plan | {"seed": 1, "steps": 2, "anneal": 0.5}, "continue_from": str(first.path)}
    second = pretrain(settings(tmp_path, manifest, "second", "mae", **more))
    steps = [load_file(run.path / "plateau.safetensors")["optimizer/step/head.conv.weight"] for run in (first, second)]
    assert steps == [3, 4]
    with pytest.raises(BadInput, match=r"not this training's; give encoder.name=residual encoder.channels=\[4,8\]"):
        pretrain(settings(tmp_path, manifest, "third", "mae", **more, encoder={"channels": [8, 8], "strides": [1, 2]}))


def test_a_pretraining_for_a_fold_looks_at_no_patient_whom_the_fold_holds_out(tmp_path):
    ingested(tmp_path, cases=6, labelled=5, shape=(20, 18, 16), bright=300, shares="train=0.8,test=0.2")
    manifest = tmp_path / "store" / "manifest.csv"
    dealt = {"folds": 2, "fold": 1, "seed": 3}
    plan = {"epochs": 1, "steps": 1, "batch": 1}
    fold = pretrain(settings(tmp_path, manifest, "fold", "mae", plan=plan, **dealt))
    whole = pretrain(settings(tmp_path, manifest, "whole", "mae", plan=plan))
    held = {case.id for case in Manifest.read(manifest).fold(1, 2, 3).by("val").cases}
    seen = [{trace.id for trace in leaks.recall(run.path)} for run in (fold, whole)]
    assert held and not held & seen[0] and held <= seen[1]
    given = {"manifest": manifest, "crop": [16, 16, 16], "encoder": {"channels": [4, 8], "strides": [1, 2]}}
    given |= {"plan": plan, "validate_on": 0, "allow_absent": True} | dealt
    asked = [
        config.check(given | {"run": tmp_path / f"on-{run.path.name}", "pretrained": run.path}, Finetune, "test")
        for run in (fold, whole)
    ]
    finetune(asked[0])
    with pytest.raises(BadInput, match=r"overlaps between .*whole"):
        finetune(asked[1])


def test_a_beginning_that_contradicts_itself_is_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match="give one of them"):
        settings(tmp_path, manifest, "run", "mae", start_from="a", continue_from="b")
    with pytest.raises(BadInput, match=r"plan\.schedule=infinite as well"):
        settings(tmp_path, manifest, "run", "mae", continue_from="b")


@pytest.mark.parametrize(
    ("objective", "crop", "said"),
    [
        ("inpaint", [18, 17, 16], r"crop \(18, 17, 16\) does not divide .* use \(18, 18, 16\)"),
        ("mae", [4, 4, 4], "8 cells .* masking needs 16"),
        ("spark", [4, 4, 4], "8 cells .* masking needs 16"),
        ("hybrid", [4, 4, 4], "8 cells .* masking needs 16"),
    ],
)
def test_a_crop_that_nothing_can_be_learnt_from_is_refused_before_a_run_begins(
    objective, crop, said, tmp_path, manifest
):
    with pytest.raises(BadInput, match=said):
        pretrain(settings(tmp_path, manifest, "run", objective, crop=crop))
    assert not (tmp_path / "run").exists()


def test_a_pool_smaller_than_a_batch_is_refused(tmp_path, manifest):
    with pytest.raises(BadInput, match=r"'train' holds 3 cases, a batch takes 4 .*lower plan\.batch"):
        pretrain(settings(tmp_path, manifest, "run", "mae", plan={"epochs": 1, "steps": 1, "batch": 4}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["global_local", "vicreg", "hybrid"])
def test_crops_whose_places_are_compared_are_not_turned(objective, tmp_path, manifest):
    with pytest.raises(BadInput, match=f"{objective} compares places, which augment would move"):
        pretrain(settings(tmp_path, manifest, "run", objective, augment={}))
    assert not (tmp_path / "run").exists()


def test_crops_to_rebuild_may_be_turned_and_bent(tmp_path, manifest):
    plain, turned = ({}, {"augment": {"share": 1.0}})
    losses = [
        pretrain(settings(tmp_path, manifest, str(n), "mae", **how)).card["scores"]["loss"]
        for n, how in enumerate((plain, turned))
    ]
    assert losses[0] != losses[1]

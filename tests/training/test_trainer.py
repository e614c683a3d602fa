"""A killed training resumes step for step; voxels or a loss that are not finite stop it and name the cases."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from medssl.data.crops import Crops
from medssl.errors import BadInput, Stopped
from medssl.files import exclusive_lock
from medssl.nn.interop import weight_transfer
from medssl.objectives.reconstruction.spark import Spark
from medssl.render.report import read_curves
from medssl.tasks.segment import Config as SegmentConfig
from medssl.tasks.segment import SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders
from medssl.training.trainer import train
from tests.helpers.toy_training import (
    SHORT_TRAINING,
    make_batch,
    make_encoder,
    make_loader,
    make_loaders,
    make_spark,
    open_run,
)


class Killed(Exception):
    pass


@pytest.mark.parametrize("value", [32, "32"])
def test_full_precision_can_be_given_as_a_number(value):
    assert TrainConfig(epochs=1, steps_per_epoch=1, precision=value).precision == "32"


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    train(make_spark(), make_loaders(), open_run(tmp_path / "whole"), SHORT_TRAINING)

    learner, calls = make_spark(), []
    step = learner.step

    def fail_at_call_eight(crops: Crops):
        calls.append(1)
        if len(calls) == 8:
            raise Killed
        return step(crops)

    learner.step = fail_at_call_eight
    with pytest.raises(Killed):
        train(learner, make_loaders(), open_run(tmp_path / "resumed"), SHORT_TRAINING)
    train(make_spark(), make_loaders(), open_run(tmp_path / "resumed"), SHORT_TRAINING)
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for key in whole:
        assert torch.equal(whole[key], resumed[key]), key

    logged = [read_curves(tmp_path / name / "logs" / "metrics.csv") for name in ("whole", "resumed")]
    assert (
        logged[0].keys() == logged[1].keys() and logged[0]["loss"] == logged[1]["loss"] and len(logged[0]["loss"]) == 4
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_training_that_gets_a_signal_stops_and_can_resume(tmp_path, number):
    learner, handlers = make_spark(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    step, calls = learner.step, []

    def signal_at_call_five(crops: Crops):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return step(crops)

    learner.step = signal_at_call_five
    opened = open_run(tmp_path / "run")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs of a shell
    try:
        with pytest.raises(Stopped, match=f"received {number.name}; the state after step 5 is saved") as stopped:
            train(learner, make_loaders(), opened, SHORT_TRAINING)
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    assert stopped.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert not (opened.path / "weights.safetensors").exists()
    train(make_spark(), make_loaders(), opened, SHORT_TRAINING)
    assert (opened.path / "weights.safetensors").exists()


def test_two_processes_do_not_train_one_run(tmp_path):
    opened = open_run(tmp_path / "run")
    with (
        exclusive_lock(opened.path, ""),
        pytest.raises(BadInput, match="run: another process trains this run; wait for its end"),
    ):
        train(make_spark(), make_loaders(), opened, SHORT_TRAINING)
    assert not (opened.path / "weights.safetensors").exists() and not (opened.path / "report.html").exists()
    train(make_spark(), make_loaders(), opened, SHORT_TRAINING)


def test_a_training_leaves_weights_logs_previews_and_scores(tmp_path):
    opened = open_run(tmp_path / "run")
    scores = train(make_spark(), make_loaders(), opened, SHORT_TRAINING)
    assert {"loss", "hidden", "visible"} <= scores.keys()
    assert (opened.path / "weights.safetensors").is_file() and (opened.path / "logs" / "metrics.csv").is_file()
    assert [p.name for p in sorted((opened.path / "previews").iterdir())][-1] == "epoch_0004.png"
    assert not list(opened.path.glob("*.ckpt"))
    assert opened.metadata["resource_usage"]["seconds"] > 0


def make_failing_objective(after: int) -> Spark:
    """An objective whose loss is NaN after a number of steps."""
    learner, calls = make_spark(), []
    step = learner.step

    def return_nan(crops: Crops):
        calls.append(1)
        result = step(crops)
        return result if len(calls) <= after else replace(result, loss=result.loss * float("nan"))

    learner.step = return_nan
    return learner


def test_a_loss_that_is_not_finite_stops_and_names_the_cases(tmp_path):
    loaders = make_loaders(case_ids=("first", "second"))
    with pytest.raises(BadInput, match=r"on first, second; .*lower train\.lr"):
        train(make_failing_objective(4), loaders, open_run(tmp_path / "run"), SHORT_TRAINING)
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    last = torch.load(tmp_path / "run" / "step-00000003.ckpt", weights_only=True)
    assert last["epoch"] == 0 and all(value.isfinite().all() for value in last["state_dict"].values())


def test_a_volume_with_voxels_that_are_not_finite_is_named(tmp_path):
    loaders = make_loaders(broken=1, case_ids=("first", "second"))
    with pytest.raises(BadInput, match=r"^second: voxels are not finite .*run ingest again$"):
        train(make_spark(), loaders, open_run(tmp_path / "run"), SHORT_TRAINING)


def test_a_task_learns_and_keeps_its_best_weights(tmp_path):
    opened, volume = open_run(tmp_path / "run"), one_volume()
    task = SegmentTask(SegmentConfig(), make_encoder(), 2, (32, 32, 32))
    config = TrainConfig(epochs=6, steps_per_epoch=4, lr=1e-2, ema_decay=0.5)
    loaders = DataLoaders(make_loader(4, label=True), DataLoader([volume], batch_size=None), val_every_n_epochs=2)
    scores = train(task, loaders, opened, config)
    assert scores["best_val_dice"] > 0.8
    assert scores["best_epoch"] in (2, 4, 6)
    assert not list(opened.path.glob("*.ckpt"))


@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_the_best_score_belongs_to_the_weights_that_are_kept(tmp_path, ema):
    """These are the averaged weights, which were validated, not the weights of the last step."""
    opened, volume = open_run(tmp_path / "run"), one_volume()
    task = SegmentTask(SegmentConfig(), make_encoder(), 2, (32, 32, 32))
    config = TrainConfig(epochs=2, steps_per_epoch=6, lr=1e-2, ema_decay=ema)
    loaders = DataLoaders(make_loader(4, label=True), DataLoader([volume], batch_size=None), val_every_n_epochs=1)
    scores = train(task, loaders, opened, config)
    fresh = SegmentTask(SegmentConfig(), make_encoder(), 2, (32, 32, 32))
    weight_transfer.load_parts(opened.path / "weights.safetensors", fresh.transferable())
    assert scores["best_val_dice"] == pytest.approx(fresh.eval().validate(volume)["dice"].item(), abs=1e-4)


def one_volume() -> Crops:
    """The first volume of a labelled batch, as validation takes it."""
    crops = make_batch(9, True)
    return replace(crops, **{f: getattr(crops, f)[:1] for f in ("x", "label", "corner", "size", "affine", "volume")})


def test_the_averaged_weights_are_kept(tmp_path):
    first, distance = make_spark().state_dict(), {}
    for ema in (0.0, 0.9999):
        opened = open_run(tmp_path / str(ema))
        train(make_spark(), make_loaders(), opened, SHORT_TRAINING.model_copy(update={"ema_decay": ema}))
        weights = load_file(opened.path / "weights.safetensors")
        distance[ema] = max(float((weights[k] - first[k]).abs().max()) for k in weights)
    assert 0 < distance[0.9999] < distance[0.0] / 3

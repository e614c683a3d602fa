"""A training goes on where it was killed, step for step, and stops with a name where its numbers break."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.files import alone
from medssl.nn.interop import weight_transfer as transfer
from medssl.objectives.spark import Spark
from medssl.render.report import curves
from medssl.tasks.segment import Config as SegmentConfig
from medssl.tasks.segment import Segment
from medssl.training.config import Plan
from medssl.training.trainer import fit
from tests.helpers.toy_training import PLAN, batch, encoder, loader, run, spark


class Killed(Exception):
    pass


@pytest.mark.parametrize("said", [32, "32"])
def test_full_precision_may_be_written_as_the_number_it_is(said):
    assert Plan(epochs=1, steps=1, precision=said).precision == "32"


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    fit(spark(), PLAN, run(tmp_path / "whole"), loader())

    learner, seen = spark(), []
    step = learner.step

    def fails(crops: Crops):
        seen.append(1)
        if len(seen) == 8:
            raise Killed
        return step(crops)

    learner.step = fails
    with pytest.raises(Killed):
        fit(learner, PLAN, run(tmp_path / "torn"), loader())
    fit(spark(), PLAN, run(tmp_path / "torn"), loader())
    whole, torn = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "torn"))
    assert whole.keys() == torn.keys()
    for key in whole:
        assert torch.equal(whole[key], torn[key]), key

    drawn = [curves(tmp_path / name / "logs" / "metrics.csv") for name in ("whole", "torn")]
    assert drawn[0].keys() == drawn[1].keys() and drawn[0]["loss"] == drawn[1]["loss"] and len(drawn[0]["loss"]) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_told_to_stop_says_so_and_goes_on_later(tmp_path, number):
    learner, before = spark(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    step, seen = learner.step, []

    def told(crops: Crops):
        seen.append(1)
        if len(seen) == 5:
            os.kill(os.getpid(), number)
        return step(crops)

    learner.step = told
    made = run(tmp_path / "run")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background ignores
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(learner, PLAN, made, loader())
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    assert not (made.path / "weights.safetensors").exists() and (made.path / "last.ckpt").exists()
    fit(spark(), PLAN, made, loader())
    assert (made.path / "weights.safetensors").exists()


def test_two_processes_do_not_train_one_run(tmp_path):
    made = run(tmp_path / "run")
    with alone(made.path, ""), pytest.raises(BadInput, match="run: another process trains this run; wait for its end"):
        fit(spark(), PLAN, made, loader())
    assert not (made.path / "weights.safetensors").exists() and not (made.path / "report.html").exists()
    fit(spark(), PLAN, made, loader())


def test_a_training_leaves_weights_logs_previews_and_scores(tmp_path):
    made = run(tmp_path / "run")
    scores = fit(spark(), PLAN, made, loader())
    assert {"loss", "hidden", "visible"} <= scores.keys()
    assert (made.path / "weights.safetensors").is_file() and (made.path / "logs" / "metrics.csv").is_file()
    assert [p.name for p in sorted((made.path / "previews").iterdir())][-1] == "epoch_0004.png"
    assert not list(made.path.glob("*.ckpt"))
    assert made.card["spent"]["seconds"] > 0


def failing(after: int) -> Spark:
    """An objective whose loss breaks after so many steps."""
    learner, seen = spark(), []
    step = learner.step

    def breaks(crops: Crops):
        seen.append(1)
        told = step(crops)
        return told if len(seen) <= after else replace(told, loss=told.loss * float("nan"))

    learner.step = breaks
    return learner


def test_a_loss_that_is_no_number_stops_and_names_the_rows(tmp_path):
    with pytest.raises(BadInput, match=r"on first, second; .*lower plan\.lr"):
        fit(failing(4), PLAN, run(tmp_path / "run"), loader(), cases=("first", "second"))
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0 and all(value.isfinite().all() for value in last["state_dict"].values())


def test_a_volume_with_voxels_that_are_no_numbers_is_named_alone(tmp_path):
    with pytest.raises(BadInput, match=r"^second: voxels are no numbers .*ingest anew$"):
        fit(spark(), PLAN, run(tmp_path / "run"), loader(broken=1), cases=("first", "second"))


def test_a_task_learns_and_keeps_its_best_weights(tmp_path):
    made, task, whole = run(tmp_path / "run"), Segment(SegmentConfig(), encoder(), 2, (32, 32, 32)), one_volume()
    plan = Plan(epochs=6, steps=4, lr=1e-2, ema=0.5)
    scores = fit(task, plan, made, loader(4, label=True), DataLoader([whole], batch_size=None), every=2)
    assert scores["best_val_dice"] > 0.8
    assert scores["best_epoch"] in (2, 4, 6)
    assert not list(made.path.glob("*.ckpt"))


@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_the_best_score_is_that_of_the_weights_that_are_kept(tmp_path, ema):
    """They are the averaged ones, which the validation looked at, not the ones that the next step starts from."""
    made, task, whole = run(tmp_path / "run"), Segment(SegmentConfig(), encoder(), 2, (32, 32, 32)), one_volume()
    plan = Plan(epochs=2, steps=6, lr=1e-2, ema=ema)
    scores = fit(task, plan, made, loader(4, label=True), DataLoader([whole], batch_size=None), every=1)
    fresh = Segment(SegmentConfig(), encoder(), 2, (32, 32, 32))
    transfer.load(made.path / "weights.safetensors", fresh.transferable())
    assert scores["best_val_dice"] == pytest.approx(fresh.eval().validate(whole)["dice"].item(), abs=1e-4)


def one_volume() -> Crops:
    """The first volume of a labelled batch, whole, as validation takes it."""
    many = batch(9, True)
    return replace(many, **{f: getattr(many, f)[:1] for f in ("x", "label", "corner", "size", "affine", "volume")})


def test_the_averaged_weights_are_the_ones_that_are_kept(tmp_path):
    first, moved = spark().state_dict(), {}
    for ema in (0.0, 0.9999):
        made = run(tmp_path / str(ema))
        fit(spark(), PLAN.model_copy(update={"ema": ema}), made, loader())
        kept = load_file(made.path / "weights.safetensors")
        moved[ema] = max(float((kept[k] - first[k]).abs().max()) for k in kept)
    assert 0 < moved[0.9999] < moved[0.0] / 3

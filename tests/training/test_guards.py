"""No bad training looks like a good one: each fault of data, disk, memory or machine ends in a line and in a state that
resumes.
"""

import logging
import os
import resource
import threading
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from medssl.errors import BadInput, Stopped
from medssl.files import PART_PREFIX
from medssl.nn.interop import weight_transfer
from medssl.training.data_loaders import DataLoaders, ResumableSampler
from medssl.training.fault_tolerance.limits import LimitConfig
from medssl.training.trainer import train
from tests.helpers.toy_training import SHORT_TRAINING as CONFIG
from tests.helpers.toy_training import Batches, make_loaders, make_spark, open_run

SAVE_ALWAYS = LimitConfig(checkpoint_minutes=1e-9)
NAMES = ("first", "second")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of the training that nothing disturbs."""
    run = open_run(tmp_path_factory.mktemp("whole") / "run")
    train(make_spark(), make_loaders(), run, CONFIG)
    return load_file(run.path / "weights.safetensors")


def require_equal(run, weights):
    found = load_file(run.path / "weights.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def spoil(learner, what, calls):
    """Makes the gradient, or the weights after the step, NaN in the training steps with these numbers, from 1."""
    step, made = learner.step, []
    weight = next(learner.encoder.parameters())

    def spoilt_step(crops):
        made.append(1)
        result = step(crops)
        if len(made) in calls and what == "gradient":
            result.loss.register_hook(lambda gradient: gradient * float("nan"))
        return result

    def spoilt_after_step():
        if len(made) in calls and what == "weights":
            weight.data[0] = float("nan")

    learner.step, learner.after_step = spoilt_step, spoilt_after_step
    return learner


@pytest.mark.parametrize("calls", [(1,), (3, 4), (12,)])
def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path, caplog, calls):
    run, learner = open_run(tmp_path / "run"), spoil(make_spark(), "gradient", calls)
    seen = []
    learner.encoder.register_forward_pre_hook(
        lambda module, _: seen.append(next(module.parameters()).detach().clone()) if module.training else None
    )
    train(learner, make_loaders(case_ids=NAMES), run, CONFIG)
    assert all(value.isfinite().all() for value in load_file(run.path / "weights.safetensors").values())
    lines = [record.message for record in caplog.records if "is skipped" in record.message]
    assert lines == [f"step {n} is skipped: its gradient is not finite, on first, second" for n in calls]
    assert run.metadata["skipped_steps"] == len(calls)
    for number, (before, after) in enumerate(pairwise(seen), 1):
        assert torch.equal(before, after) == (number in calls)


def test_too_many_such_steps_in_a_row_stop_it_and_name_the_cases(tmp_path):
    config = CONFIG.model_copy(update={"max_skipped_steps": 2})
    run, learner = open_run(tmp_path / "run"), spoil(make_spark(), "gradient", (2, 5, 6, 7))
    with pytest.raises(BadInput, match=r"^step 7: .*not finite, 3 times in a row, on first, second"):
        train(learner, make_loaders(case_ids=NAMES), run, config)
    assert not (run.path / "weights.safetensors").exists()


@pytest.mark.parametrize("call", [2, 3, 12])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, whole, call):
    run = open_run(tmp_path / "run")
    with pytest.raises(BadInput, match=r"NaN|nan"):
        train(spoil(make_spark(), "weights", (call,)), make_loaders(), run, CONFIG, limits=SAVE_ALWAYS)
    assert not (run.path / "weights.safetensors").exists() and not run.is_closed
    train(make_spark(), make_loaders(), run, CONFIG)
    require_equal(run, whole)


def test_no_file_of_weights_holds_nan(tmp_path):
    with pytest.raises(BadInput, match=r"b holds NaN or infinity \(1 of 2 tensors\)"):
        weight_transfer.write_tensors({"a": torch.ones(2), "b": torch.tensor([1, torch.inf])}, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def interrupt(run, step=5):
    """Trains up to a step, and leaves a checkpoint there and one at the step before."""
    learner = make_spark()
    learner.after_step = lambda calls=[]: calls.append(1) or (len(calls) == step + 1 and raise_killed())
    with pytest.raises(ZeroDivisionError):
        train(learner, make_loaders(), run, CONFIG, limits=SAVE_ALWAYS)
    return sorted(run.path.glob("step-*.ckpt"))


def raise_killed():
    raise ZeroDivisionError


DAMAGES = {
    "torn": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": lambda path: path.write_bytes(flip_bit(path.read_bytes())),
    "without checksum": lambda path: path.with_name(f"{path.name}.sha256").unlink(),
    "empty": lambda path: path.write_bytes(b""),
}


def flip_bit(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, whole, caplog, damage):
    run = open_run(tmp_path / "run")
    before, last = interrupt(run)
    assert [path.name for path in (before, last)] == ["step-00000004.ckpt", "step-00000005.ckpt"]
    DAMAGES[damage](last)
    (run.path / f"{PART_PREFIX}x.ckpt").write_bytes(b"left by a killed process")
    (run.path / "logs" / f"{PART_PREFIX}folder").mkdir()
    train(make_spark(), make_loaders(), run, CONFIG)
    assert f"{last}: is damaged (its checksum differs); going back to the checkpoint before it" in caplog.text
    require_equal(run, whole)
    assert not [path for path in run.path.rglob("*") if path.name.startswith((PART_PREFIX, "step-"))]


def test_without_an_intact_checkpoint_it_begins_again(tmp_path, whole, caplog):
    run = open_run(tmp_path / "run")
    for path in interrupt(run):
        DAMAGES["torn"](path)
    train(make_spark(), make_loaders(), run, CONFIG)
    assert "no checkpoint is intact; the training begins again" in caplog.text
    require_equal(run, whole)


LIMITS = {"max_hours": "limits.max_hours=1e-09 is reached", "max_memory_gb": "GB of memory, the limit is 0.0 GB"}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_saves_and_stops_it(tmp_path, whole, limit):
    run = open_run(tmp_path / "run")
    for step in (1, 2):
        with pytest.raises(Stopped, match=f"{LIMITS[limit]}.*after step {step} is saved") as stopped:
            train(make_spark(), make_loaders(), run, CONFIG, limits=LimitConfig(**{limit: 1e-9}))
        assert stopped.value.exit_code == 75
    train(make_spark(), make_loaders(), run, CONFIG)
    require_equal(run, whole)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU is out of memory; start"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory is exhausted"),
        (MemoryError(), "memory is exhausted"),
    ],
)
def test_exhausted_memory_is_one_line_that_says_where_it_goes_on(tmp_path, error, words):
    run, learner = open_run(tmp_path / "run"), make_spark()
    step, calls = learner.step, []

    def fail(crops):
        calls.append(1)
        if len(calls) == 5:
            raise error
        return step(crops)

    learner.step = fail
    with pytest.raises(BadInput, match=f"{words}.*resume=true continues this one after step 3$"):
        train(learner, make_loaders(), run, CONFIG)


class DyingBatches(Batches):
    """Batches whose loader process ends without a word at one of them."""

    def __getitem__(self, index):
        if index == 4 and torch.utils.data.get_worker_info():
            time.sleep(1)  # until the batch before has arrived; torch may still interrupt the step with that batch
            os._exit(1)
        return super().__getitem__(index)


def test_the_death_of_a_loader_process_is_one_line_and_loses_no_step(tmp_path, whole):
    run = open_run(tmp_path / "run")
    loader = DataLoader(
        DyingBatches(3), batch_size=None, sampler=ResumableSampler(3), num_workers=1, prefetch_factor=1,
        multiprocessing_context="fork",
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"a data loader process died.*continues this one after step [34]$"):
        train(make_spark(), DataLoaders(loader), run, CONFIG)
    train(make_spark(), make_loaders(), run, CONFIG)
    require_equal(run, whole)


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path, whole):
    run, learner = open_run(tmp_path / "run"), make_spark()
    calls, limit = [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk():
        calls.append(1)
        if len(calls) == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))

    learner.after_step = fill_disk
    try:
        with pytest.raises(OSError, match=r"too large|space"):
            train(learner, make_loaders(), run, CONFIG, limits=SAVE_ALWAYS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in sorted(run.path.glob("*.ckpt"))] == ["step-00000003.ckpt", "step-00000004.ckpt"]
    assert not list(run.path.glob(f"{PART_PREFIX}*"))
    train(make_spark(), make_loaders(), run, CONFIG)
    require_equal(run, whole)


def test_a_hang_is_named_with_its_stage_and_line(tmp_path, caplog):
    run, learner = open_run(tmp_path / "run"), make_spark()
    step, calls = learner.step, []

    def hang(crops):
        calls.append(1)
        deadline = time.monotonic() + 60
        while len(calls) == 2 and "no progress" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        return step(crops)

    learner.step = hang
    with caplog.at_level(logging.WARNING):
        train(learner, make_loaders(), run, CONFIG, limits=LimitConfig(watchdog_minutes=0.02))
    line = next(record.message for record in caplog.records if "no progress" in record.message)
    assert "while training step 2" in line and f"{Path('training/lightning_module.py')}:" in line


@pytest.mark.parametrize("stops", [ValueError("stops"), Stopped("stops", 75), None], ids=repr)
def test_nothing_watches_a_training_that_has_ended(tmp_path, stops):
    run, learner = open_run(tmp_path / "run"), make_spark()

    def stop():
        assert "watchdog" in {thread.name for thread in threading.enumerate()}
        if stops:
            raise stops

    watching = {thread for thread in threading.enumerate() if thread.name == "watchdog"}
    learner.after_step = stop
    with pytest.raises(type(stops), match="stops") if stops else nullcontext():
        train(learner, make_loaders(), run, CONFIG)
    deadline = time.monotonic() + 60
    while alive := {thread for thread in threading.enumerate() if thread.name == "watchdog"} - watching:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)

"""What feeds a training: the number of loader processes, and the time that the training waits for its batches."""

import os

import pytest
import torch

from medssl.render.report import read_curves
from medssl.training import data_loaders
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import TrainBatches, count_workers
from medssl.training.trainer import train
from tests.helpers.toy_training import SHORT_TRAINING, make_loader, make_loaders, make_spark, open_run


@pytest.mark.parametrize(
    ("has_gpu", "cores", "settings", "expected"),
    [
        (False, 64, {}, 0),
        (True, 64, {}, 12),
        (True, 16, {}, 12),
        (True, 32, {"devices": 8, "batch_size": 8}, 3),
        (True, 1, {}, 0),
        (True, 64, {"accelerator": "cpu"}, 0),
        (True, 64, {"num_workers": 5}, 5),
        (False, 64, {"num_workers": 2}, 2),
    ],
)
def test_a_gpu_gets_its_share_of_the_cores(monkeypatch, has_gpu, cores, settings, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert count_workers(TrainConfig(**settings)) == expected


def test_the_time_of_loading_is_counted_and_that_of_training_is_not(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(data_loaders.time, "monotonic", lambda: clock[0])
    loader = make_loader(3)
    load = loader.dataset.__class__.__getitem__

    def load_in_two_seconds(dataset, index):
        clock[0] += 2
        return load(dataset, index)

    monkeypatch.setattr(loader.dataset.__class__, "__getitem__", load_in_two_seconds)
    batches = TrainBatches(loader)
    for number, _ in enumerate(batches, 1):
        clock[0] += 100  # the training
        assert batches.waited_s == 2 * number
    assert len(batches) == number == 3


def test_every_epoch_logs_how_long_the_training_waited(tmp_path, capsys):
    run = open_run(tmp_path / "run")
    train(make_spark(), make_loaders(), run, SHORT_TRAINING)
    waits = [value for _, value in read_curves(run.path / "logs" / "metrics.csv")["loader_wait"]]
    assert len(waits) == SHORT_TRAINING.epochs and all(0 <= value <= 1 for value in waits)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == SHORT_TRAINING.epochs and all("waits for crops" in line for line in lines)

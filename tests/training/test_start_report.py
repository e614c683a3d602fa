"""A training says what it will do before its first step, and shows that it moves."""

import copy

import pytest
import torch

from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.training.callbacks import progress, start_report
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, train_loader
from medssl.training.estimates.step_cost import format_duration, time_steps
from medssl.training.trainer import train
from tests.helpers.toy_training import make_spark, open_run, write_store

CONFIG = TrainConfig(epochs=2, steps_per_epoch=3, batch_size=2, accelerator="cpu")


@pytest.fixture
def loaders(tmp_path) -> DataLoaders:
    manifest = Manifest.read(write_store(tmp_path / "store", 3))
    dataset = CropDataset(manifest, IntensityNormalization(), (16, 16, 16))
    return DataLoaders(train_loader(dataset, CONFIG), case_ids=["a", "b", "c"])


def test_a_training_describes_itself_before_its_first_step(loaders, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setattr(start_report, "MIN_TIMED_STEPS", 1)
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "MESSAGE_INTERVAL_S", 0.0)
    with caplog.at_level("INFO", logger="medssl.training"):
        train(make_spark(), loaders, open_run(tmp_path / "run"), CONFIG)
    first, second = (record.getMessage() for record in caplog.records[:2])
    assert first.startswith("3 volumes; 6 steps of 2 crops of 16 x 16 x 16 voxels, 4 of each volume; 0.0")
    assert "GB of memory and 1 min" in second
    lines = capsys.readouterr().err.splitlines()
    assert "step 2/6  loss" in lines[1] and "waits for crops" in lines[1] and "left" in lines[1]


def test_the_timed_steps_change_neither_weights_nor_random_state(loaders):
    learner = make_spark()
    before, state = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    cost = time_steps(learner, loaders)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in learner.parameters())
    assert cost.wall_s > 0 and cost.memory_gb > 0


def test_a_timed_training_ends_with_the_weights_of_an_untimed_one(loaders, tmp_path, monkeypatch):
    runs = []
    for limit in (1000, 1):
        monkeypatch.setattr(start_report, "MIN_TIMED_STEPS", limit)
        run = open_run(tmp_path / f"run{limit}")
        train(make_spark(), loaders, run, CONFIG)
        runs.append((run.path / "weights.safetensors").read_bytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("seconds", "text"), [(5, "1 min"), (3000, "50 min"), (7900, "2 h 10 min")])
def test_a_duration_is_rough(seconds: float, text: str):
    assert format_duration(seconds) == text

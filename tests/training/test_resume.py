"""A training that is stopped at any step goes on at the next one, to the same weights bit for bit."""

import os
import random
import signal
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file

from medssl import config
from medssl.data.registration.parcels import AtlasConfig, build_atlas
from medssl.errors import Stopped
from medssl.render.report import read_curves
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.lightning_module import LitTraining
from medssl.training.pretrain import PretrainConfig, pretrain
from tests.helpers.toy_training import write_store

NETWORK = {"encoder": {"name": "residual", "channels": [4, 8], "strides": [1, 2]}, "patch_size": [8, 8, 8]}
TRAIN = {"epochs": 2, "steps_per_epoch": 3, "lr": 0.01}
FEW = {"num_labelled": 2, "train": TRAIN}
AUGMENT = {"probability": 0.5}
PRETRAININGS = {
    "spark": {"train": {**TRAIN, "ema_decay": 0.9, "accumulate_grad_batches": 2, "schedule": "infinite"}},
    "mae": {"train": {**TRAIN, "optimizer": "lamb", "layer_decay": 0.7}, "augment": AUGMENT},
    "mae-channels": {"objective": {"name": "mae"}, "train": {**TRAIN, "channel_dropout": 0.5}},
    "mae-continued": {"objective": {"name": "mae"}, "train": {**TRAIN, "schedule": "infinite"}},
    "mae-device": {"objective": {"name": "mae"}, "augment": AUGMENT, "train": {**TRAIN, "augment_on": "device"}},
    "inpaint": {"train": {**TRAIN, "precision": "bf16"}},
    "vicreg": {},
    "global_local": {},
    "jepa": {},
    "sum": {"num_probe_volumes": 1},
}
FINETUNINGS = {
    "segment": {"train": {**TRAIN, "ema_decay": 0.9, "freeze_fraction": 0.5}, "augment": AUGMENT},
    "segment-channels": {"train": {**TRAIN, "channel_dropout": 0.5}, "val_every_n_epochs": 1},
    "segment-device": {"augment": AUGMENT, "train": {**TRAIN, "augment_on": "device"}},
    "detect": {"task": {"name": "detect"}},
    "detect-sawtooth": {"task": {"name": "detect"}, "train": {**TRAIN, "schedule": "sawtooth", "freeze_fraction": 0.4}},
    "mean-teacher": {**FEW, "semi_supervised": {"method": "mean-teacher"}},
    "pseudo-label": {**FEW, "semi_supervised": {"method": "pseudo-label"}, "val_every_n_epochs": 1},
    "label-propagation": {**FEW, "semi_supervised": {"method": "label-propagation"}},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store", 5, side=16)


@pytest.fixture(scope="module")
def changes(manifest):
    """By the name of a training, what it needs besides the manifest of most."""
    folder = manifest.parent.parent
    channels = write_store(folder / "channels", 5, channels=2, side=16)
    infinite = {"objective": {"name": "mae"}, "train": {**TRAIN, "epochs": 1, "schedule": "infinite"}}
    first = pretrain(config.check(NETWORK | infinite | {"manifest": manifest, "run": folder / "a"}, PretrainConfig, ""))
    build_atlas(manifest, folder / "atlas", AtlasConfig(num_parcels=4), lambda *_: None)
    propagation = {"method": "label-propagation", "atlas": folder / "atlas"}
    return {
        "mae-channels": {"manifest": channels},
        "segment-channels": {"manifest": channels},
        "mae-continued": {"continue_from": first.path},
        "label-propagation": {"semi_supervised": propagation},
    }


def start(manifest, run, name, **changes):
    """Runs a training, or resumes it, and returns the run."""
    values = {**NETWORK, "train": TRAIN, "manifest": manifest, "run": run, "resume": True}
    if name in FINETUNINGS:
        return finetune(config.check(values | FINETUNINGS[name] | changes, FinetuneConfig, "test"))
    values |= {"objective": {"name": name}}
    return pretrain(config.check(values | PRETRAININGS[name] | changes, PretrainConfig, "test"))


@pytest.fixture
def steps(monkeypatch):
    """The numbers of the training steps that are made; `steps.signals` maps a number to the signal sent within it."""

    class Steps(list):
        signals: dict[int, signal.Signals] = {}

    made = Steps()
    training_step = LitTraining.training_step

    def record(module, crops, index):
        accumulated = module.config.accumulate_grad_batches
        made.append(module.current_epoch * module.config.steps_per_epoch + index // accumulated + 1)
        if made[-1] in made.signals:
            os.kill(os.getpid(), made.signals.pop(made[-1]))
        return training_step(module, crops, index)

    monkeypatch.setattr(LitTraining, "training_step", record)
    return made


def compare(first, second):
    """Raises unless two runs have the same weights and curves."""
    weights = [load_file(run.path / "weights.safetensors") for run in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []
    curves = [read_curves(run.path / "logs" / "metrics.csv") for run in (first, second)]
    untimed = [
        {name: curve for name, curve in kept.items() if not name.startswith(("monitor_", "crops_per_s", "loader_wait"))}
        for kept in curves
    ]
    assert untimed[0] == untimed[1] and "loss" in untimed[0]


@pytest.mark.parametrize("name", [*PRETRAININGS, *FINETUNINGS])
def test_it_goes_on_at_the_next_step(tmp_path, manifest, changes, steps, name):
    changed = {"manifest": manifest} | changes.get(name, {})
    whole = start(run=tmp_path / "whole", name=name, **changed)
    expected = list(steps)
    random_ = random.Random(name)
    stopped_at = random_.choice([1, 2, 4, 5])  # within an epoch
    steps.clear()
    steps.signals = {stopped_at: random_.choice([signal.SIGTERM, signal.SIGUSR1])}
    with pytest.raises(Stopped, match=f"the state after step {stopped_at} is saved, resume=true") as stopped:
        start(run=tmp_path / "resumed", name=name, **changed)
    assert stopped.value.exit_code == 75
    for _ in range(2):  # a finished run is kept
        compare(whole, start(run=tmp_path / "resumed", name=name, **changed))
        assert steps == expected


@pytest.mark.parametrize("name", ["mae", "mean-teacher"])
def test_it_goes_on_where_crops_are_augmented_elsewhere(tmp_path, manifest, steps, name):
    changes = {"train": TRAIN, "augment": AUGMENT}
    whole = start(manifest, tmp_path / "whole", name, **changes)
    steps.signals = {4: signal.SIGTERM}
    with pytest.raises(Stopped):
        start(manifest, tmp_path / "resumed", name, **changes)
    changes["train"] = {**TRAIN, "augment_on": "device"}
    compare(whole, start(manifest, tmp_path / "resumed", name, **changes))


@pytest.mark.parametrize("last_step", [3, 6])
def test_a_signal_in_the_last_step_of_an_epoch_is_obeyed_or_comes_too_late(tmp_path, manifest, steps, last_step):
    whole = start(manifest, tmp_path / "whole", "vicreg")
    steps.signals = {last_step: signal.SIGTERM}
    with suppress(Stopped):
        start(manifest, tmp_path / "resumed", "vicreg")
    is_closed = (tmp_path / "resumed" / "weights.safetensors").exists()
    assert is_closed == (last_step == 6)
    resumed = start(manifest, tmp_path / "resumed", "vicreg") if not is_closed else None
    if resumed:
        compare(whole, resumed)


def test_a_signal_during_a_validation_stops_at_once(tmp_path, manifest, steps, monkeypatch):
    whole = start(manifest, tmp_path / "whole", "pseudo-label")
    validation_step, expected = LitTraining.validation_step, list(steps)

    def send_signal(module, crops, index):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the validation went on")

    steps.clear()
    monkeypatch.setattr(LitTraining, "validation_step", send_signal)
    with pytest.raises(Stopped, match="after step 2 is saved"):
        start(manifest, tmp_path / "resumed", "pseudo-label")
    monkeypatch.setattr(LitTraining, "validation_step", validation_step)
    compare(whole, start(manifest, tmp_path / "resumed", "pseudo-label"))
    assert steps == [*expected[:3], *expected[2:]]


def test_a_killed_process_goes_on_from_the_last_checkpoint_within_the_epoch(tmp_path, manifest, steps, monkeypatch):
    whole = start(manifest, tmp_path / "whole", "segment")
    limits = {"checkpoint_minutes": 1e-9}

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for step in (2, 4, 5):
        steps.clear()
        monkeypatch.setattr(os, "kill", die)
        steps.signals = {step: signal.SIGKILL}
        with pytest.raises(Killed):
            start(manifest, tmp_path / "resumed", "segment", limits=limits)
        assert steps == ([1, 2], [2, 3, 4], [4, 5])[(2, 4, 5).index(step)]
    compare(whole, start(manifest, tmp_path / "resumed", "segment"))


@pytest.mark.slow
def test_it_goes_on_with_loader_processes(tmp_path, manifest, steps):
    """They prefetch before Lightning tells the sampler its epoch, which then repeated the items of the first one."""
    changes = {"train": {**TRAIN, "num_workers": 1}}
    whole = start(manifest, tmp_path / "whole", "vicreg")
    steps.signals = {4: signal.SIGTERM}
    with pytest.raises(Stopped):
        start(manifest, tmp_path / "resumed", "vicreg", **changes)
    compare(whole, start(manifest, tmp_path / "resumed", "vicreg", **changes))

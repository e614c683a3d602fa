"""Two processes with a batch of two train as one process with a batch of four, for every objective and task."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from medssl import config
from medssl.data import store
from medssl.data.pools.crop_dataset import CropDataset
from medssl.errors import BadInput, Stopped
from medssl.nn.collectives import get_rank
from medssl.render.report import read_curves
from medssl.run import Run
from medssl.settings import Settings, find_modules
from medssl.training.config import TrainConfig
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.lightning_module import LitTraining
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.training.processes.agreement import gather_values, is_main_process
from medssl.training.processes.launch import run_in_processes
from medssl.training.processes.sharding import RestoreWeights
from medssl.volume import Volume
from tests.helpers.objectives import write_reports
from tests.helpers.toy_training import write_store

OBJECTIVES = find_modules("medssl.objectives")
NETWORK = {"encoder": {"name": "residual", "channels": [4, 8], "strides": [1, 2]}, "patch_size": [8, 8, 8]}
BATCH_NORM = {"encoder": {"name": "residual", "channels": [4, 8], "strides": [1, 2], "norm": "batch"}}
# Not Adam, which makes steps of full length of the rounding errors that are the gradient of a bias before a norm.
TRAIN = {
    "epochs": 1, "steps_per_epoch": 5, "batch_size": 4, "optimizer": "sgd", "lr": 0.02, "momentum": 0.9,
    "accelerator": "cpu",
}  # fmt: skip
TWO_VIEWS = {
    "name": "global_local",
    "num_views": 2,
    "region_pairs": "LD",
    "queue_size": 10,
    "momentum": 0.9,
    "num_mixed": 9,
    "transitive": True,
}
JOBS: dict[str, dict[str, Any]] = {
    **{name: {"objective": {"name": name}} for name in OBJECTIVES},
    "report_align": {"objective": {"name": "report_align", "width": 8}},
    # With seed 0, rounding errors of 1e-7 in the crops change a weight by 4e-5 (dino) and 7e-6 in one process as well.
    "dino": {"objective": {"name": "dino"}, "train": {"seed": 1}},
    "distil": {"objective": {"name": "distil"}, "start_from": "alteration"},
    "spark-accumulated": {"objective": {"name": "spark"}, "train": {"accumulate_grad_batches": 2, "seed": 1}},
    "spark-patches": {"objective": {"name": "spark", "patch_mm": 4.0}, "patch_size": [16, 8, 8]},
    "mae-batch-norm": {"objective": {"name": "mae"}, **BATCH_NORM},
    "spark-batch-norm": {"objective": {"name": "spark", "mask_ratio": [0.5, 0.8]}, **BATCH_NORM},
    "two-views": {"objective": TWO_VIEWS},
    "segment": {"train": {"ema_decay": 0.9, "freeze_fraction": 0.4}, "augment": {"probability": 0.5}},
    "spark-device": {"objective": {"name": "spark"}, "augment": {}, "train": {"augment_on": "device"}},
    "spark-fsdp": {"objective": {"name": "spark"}, "train": {"strategy": "fsdp", "accumulate_grad_batches": 2}},
    "dino-fsdp": {"objective": {"name": "dino"}, "train": {"strategy": "fsdp", "seed": 1}},
    "segment-fsdp": {"train": {"strategy": "fsdp"}},
    "mean-teacher-fsdp": {
        "semi_supervised": {"method": "mean-teacher"},
        "num_labelled": 4,
        "train": {"strategy": "fsdp"},
    },
    "segment-balanced": {"task": {"name": "segment", "class_balance": 0.5}, "train": {"channel_dropout": 0.3}},
    "segment-regions": {"task": {"name": "segment", "regions": [[1]]}},
    **{
        f"detect-{head}": {"task": {"name": "detect", "head": head}, "train": {"seed": 1}}
        for head in ("voxel", "box", "both")
    },
    "detect-focal": {"task": {"name": "detect", "loss": "focal"}},
    "mean-teacher": {"semi_supervised": {"method": "mean-teacher"}, "num_labelled": 4},
    "copy-paste": {"semi_supervised": {"method": "copy-paste"}, "num_labelled": 4},
    "pseudo-label": {"semi_supervised": {"method": "pseudo-label", "confidence": 0.5, "mixup": 0.3}, "num_labelled": 4},
}

AIR_VOXELS = (0, 3, 6, 9, 12)  # so that a mean over the voxels of one process is not that over all of them
RESUMED_JOBS = ("resumed", "resumed-fsdp")  # from one process to two and back
RESUMED = {"name": "global_local", "queue_size": 10}


class Jobs(Settings):
    manifest: Path
    folder: Path


def train_all(jobs: Jobs) -> None:
    """Trains all jobs in one of two processes; the second one meets the faults."""
    for name in JOBS:
        start(name, jobs.manifest, jobs.folder / name, devices=2)
    with stop_at_step(2, rank=1):
        record_error(lambda: start("resumed", jobs.manifest, jobs.folder / "resumed", devices=2), jobs.folder)
    with stop_at_step(2, rank=1), pytest.raises(Stopped):
        start("resumed-fsdp", jobs.manifest, jobs.folder / "resumed-fsdp", devices=2, strategy="fsdp")
    with replace_method(RestoreWeights, "on_train_end", record_moments):
        start("moments", jobs.manifest, jobs.folder / "moments", devices=2, strategy="fsdp")
    nan = jobs.manifest.parent.with_name("nan") / "manifest.csv"
    record_error(lambda: start("nan", nan, jobs.folder / "nan", devices=2), jobs.folder)
    with replace_method(CropDataset, "__getitem__", fail_to_load):
        record_error(lambda: start("damaged", jobs.manifest, jobs.folder / "damaged", devices=2), jobs.folder)


def record_moments(original, callback, trainer, module):
    """Writes down how many values of momentum each process keeps, and how many weights there are."""
    moments = [state["momentum_buffer"] for state in trainer.optimizers[0].state.values()]
    counts = gather_values(sum(moment.to_local().numel() for moment in moments))
    total = sum(moment.numel() for moment in moments)
    if is_main_process():
        (Path(trainer.default_root_dir) / "moments.json").write_text(json.dumps([*counts, total]))
    original(callback, trainer, module)


def record_error(function: Callable[[], Any], folder: Path) -> None:
    """Writes down how a function fails in this process; the processes stay together."""
    with pytest.raises((BadInput, Stopped)) as error:
        function()
    lines = gather_values(f"{type(error.value).__name__}: {error.value}")
    with (folder / "errors.txt").open("a") as file:
        file.writelines(f"{line}\n" for line in lines if is_main_process())


def stop_at_step(step: int, rank: int = 0):
    """Sends one process a signal within a training step, counted from 1."""

    def step_with_signal(original, module, crops, index):
        if module.global_step + 1 == step and get_rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, crops, index)

    return replace_method(LitTraining, "training_step", step_with_signal)


def fail_to_load(original, dataset, number):
    """Fails on an item of the third step, which the second process loads."""
    if number == 10:
        raise BadInput("c3.b2nd: is damaged")
    return original(dataset, number)


@contextmanager
def replace_method(owner: type, name: str, function: Callable) -> Iterator[None]:
    """Replaces a method by a function that also takes the original, in a process that has no monkeypatch."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *words: function(original, *words))
    try:
        yield
    finally:
        setattr(owner, name, original)


def start(name: str, manifest: Path, run: Path, **train: Any) -> Run:
    values = NETWORK | {"manifest": manifest, "run": run, "resume": True} | JOBS.get(name, {"objective": RESUMED})
    values["train"] = TRAIN | values.get("train", {}) | train
    if "start_from" in values:
        values["start_from"] = run.parent / values["start_from"]
    if name == "report_align":
        values["objective"] = values["objective"] | {"reports": manifest.parent.with_name("reports.npz")}
    if "objective" in values:
        return pretrain(config.check(values, PretrainConfig, "test"))
    return finetune(config.check(values, FinetuneConfig, "test"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_reports(folder / "reports.npz", 9, width=8)
    return write_store(folder / "store", 9, side=16, air_voxels=AIR_VOXELS)


@pytest.fixture(scope="module")
def folders(manifest, tmp_path_factory):
    """The runs of one process and of two processes, which are started once for all of them."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name in (*JOBS, *RESUMED_JOBS):
        start(name, manifest, one / name)
    for name in RESUMED_JOBS:
        with stop_at_step(1), pytest.raises(Stopped):
            start(name, manifest, two / name)
    nan = write_store(manifest.parent.with_name("nan"), 9, side=16, air_voxels=AIR_VOXELS)
    voxels = np.full((1, 16, 16, 16), np.nan, np.float16)
    store.write(nan.parent / "c3.b2nd", Volume(voxels, np.eye(4), "a.u."), {})
    run_in_processes(train_all, Jobs(manifest=manifest, folder=two), TrainConfig(devices=2))
    for name in RESUMED_JOBS:
        start(name, manifest, two / name)
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("name", [*JOBS, *RESUMED_JOBS])
def test_two_processes_train_as_one(folders, name):
    weights = [load_file(folder / name / "weights.safetensors") for folder in folders]
    assert weights[0].keys() == weights[1].keys()
    different = {n: float((w - weights[1][n]).abs().max()) for n, w in weights[0].items() if w.is_floating_point()}
    assert max(different.values()) < 1e-6, max(different.items(), key=lambda item: item[1])
    one, two = (read_curves(folder / name / "logs" / "metrics.csv") for folder in folders)
    for curve in {"loss", "val_dice", "val_cpm"} & one.keys():
        assert [value for _, value in one[curve]] == pytest.approx([value for _, value in two[curve]], rel=1e-6), curve


@pytest.mark.slow
def test_fsdp_divides_the_moments(folders):
    *counts, total = json.loads((folders[1] / "moments" / "moments.json").read_text())
    assert sum(counts) == total and max(counts) < 0.6 * total


@pytest.mark.slow
def test_a_fault_in_one_process_stops_both_in_its_words(folders):
    lines = (folders[1] / "errors.txt").read_text().splitlines()
    assert lines[::2] == lines[1::2] and len(lines) == 6
    stopped, nan, damaged = lines[::2]
    assert stopped.startswith("Stopped:") and "received SIGTERM; the state after step 2 is saved" in stopped
    assert nan.startswith("BadInput: c3: voxels are not finite")
    assert damaged == "LoadingFailed: c3.b2nd: is damaged"
    assert (folders[1] / "damaged" / "step-00000002.ckpt").exists()


def die(jobs: Jobs) -> None:
    if get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    gather_values("waits for the other process")


@pytest.mark.slow
def test_a_killed_process_ends_the_training_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="process 1 of the training was ended by signal SIGKILL, most often for lack"):
        run_in_processes(die, Jobs(manifest=tmp_path, folder=tmp_path), TrainConfig(devices=2))


@pytest.mark.parametrize("setting", [{"ema_decay": 0.9}, {"freeze_fraction": 0.5}, {"optimizer": "lamb"}])
def test_fsdp_refuses_what_it_does_not_divide(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"strategy=fsdp does not divide {name}={value}; leave it out"):
        TrainConfig(strategy="fsdp", **setting)


def test_an_unknown_strategy_is_refused_in_one_line(manifest, tmp_path):
    with pytest.raises(BadInput, match=r"train\.strategy.*'zero'") as error:
        start("spark", manifest, tmp_path / "run", strategy="zero")
    assert "\n" not in str(error.value)


def test_the_batch_is_shared_equally_and_nodes_are_started_from_outside(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="batch_size=2 cannot be shared equally by devices=3 x num_nodes=1 processes"):
        TrainConfig(devices=3)
    jobs = Jobs(manifest=tmp_path, folder=tmp_path)
    with pytest.raises(BadInput, match="several nodes are started by torchrun or SLURM"):
        run_in_processes(die, jobs, TrainConfig(num_nodes=2))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(BadInput, match=r"4 processes were started, train\.devices=2 x train\.num_nodes=1 is 2"):
        run_in_processes(die, jobs, TrainConfig(devices=2))

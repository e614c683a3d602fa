"""Times a few training steps, and measures the memory that they need, before a training starts."""

import copy
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from medssl.data.crops import Crops
from medssl.data.pools.pending_crops import PendingCrops, augment_crops
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.data_loaders import DataLoaders

NUM_STEPS = 3  # that are timed, after one that is not
OPTIMIZER_BYTES = 8  # per parameter, for the two moments of Adam, which the timed steps do not have
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # of Linux


class StepCost(NamedTuple):
    """Cost of one optimizer step; for a finetuning also wall seconds of predicting one window.

    Attributes:
        wall_s: Seconds that pass, loading included.
        cpu_s: Seconds of this process on all cores.
        window_s: Seconds of predicting one window; 0 if that was not timed.
        memory_gb: Peak memory of the process, or of the GPU, in GB; 0 if that was not measured.
    """

    wall_s: float
    cpu_s: float
    window_s: float = 0.0
    memory_gb: float = 0.0


def time_steps(
    learner: Objective | Task,
    loaders: DataLoaders,
    batches_per_step: int = 1,
    device: str = "cpu",
    num_steps: int = NUM_STEPS,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> StepCost:
    """Times loading, forward and backward passes of a copy of a learner; learner and random state are left unchanged.

    Args:
        learner: Objective or task; its weights are not changed.
        loaders: Its training batches, of which the first ones are read.
        batches_per_step: Batches of an optimizer step.
        device: The torch device.
        num_steps: Number of timed batches.
        context: What each step runs in, such as autocast.
    """
    parameters = sum(weight.numel() for weight in learner.parameters() if weight.requires_grad)
    cuda_devices = [torch.cuda.current_device()] if device != "cpu" else []
    with torch.random.fork_rng(devices=cuda_devices), _peak_memory(device) as peak:
        trial = copy.deepcopy(learner).to(device)
        batches = _first_batches(loaders)
        _run_step(trial, next(batches), device, context)
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in islice(batches, num_steps):
            _run_step(trial, batch, device, context)
        scale = batches_per_step / num_steps
        wall_s, cpu_s = (time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale
        memory_gb = peak() + OPTIMIZER_BYTES * parameters / 2**30
    return StepCost(wall_s, cpu_s, memory_gb=memory_gb)


def count_parameters(module: nn.Module) -> int:
    """Returns the number of weights of a module."""
    return sum(weight.numel() for weight in module.parameters())


def format_duration(seconds: float) -> str:
    """Returns a rough duration, such as `3 min` or `2 h 10 min`."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60 // 10 * 10} min"


def _first_batches(loaders: DataLoaders) -> Iterator[Crops | PendingCrops]:
    """Loads the first batches in this process, without moving the sampler."""
    dataset: Any = loaders.train.dataset
    size, pack = loaders.train.batch_size, loaders.train.collate_fn
    for first in count(0, size or 1):
        yield dataset[first] if size is None else pack([dataset[number] for number in range(first, first + size)])


def _run_step(
    learner: Objective | Task,
    batch: Crops | PendingCrops,
    device: str,
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    learner.zero_grad()
    crops = augment_crops(batch.to(device))
    with context():
        loss = learner.step(crops).loss
    loss.backward()
    if device != "cpu":
        torch.cuda.synchronize()


@contextmanager
def _peak_memory(device: str) -> Iterator[Callable[[], float]]:
    """Yields a function that returns the peak memory in GB since the context was entered."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        yield lambda: torch.cuda.max_memory_allocated() / 2**30
        return
    with suppress(OSError):
        CLEAR_REFS.write_text("5")  # resets the peak; without it, the peak since the start of the process counts
    yield _read_peak_gb


def _read_peak_gb() -> float:
    """Returns the peak of the resident memory in GB: since its reset on Linux, else since the start of the process."""
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

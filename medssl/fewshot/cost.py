"""Measures what the steps of a sweep's trainings cost, to foretell its time and to give arms equal compute."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

from filelock import FileLock

from medssl.data.manifest import Manifest
from medssl.files import write_json
from medssl.run import Run
from medssl.training.estimates.step_cost import StepCost
from medssl.training.estimates.timed_training import time_training
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig
from medssl.training.semi_supervised.method_choice import list_fold_runs

COSTS_FILE = "step_costs.json"
PARTS_FOLDER = "parts"  # locks of calls that share a sweep
UNTIMED_KEYS = {
    "run",
    "manifest",
    "pretrained",
    "start_from",
    "continue_from",
    "resume",
    "seed",
    "num_labelled",
    "augment",
    "labels",
    "limits",
}
UNTIMED_TRAIN_KEYS = {"epochs", "steps_per_epoch", "seed", "lr", "ema_decay", "weight_decay", "num_workers"}


class StepCosts:
    """The costs that were measured for a sweep, kept in its folder so that they are measured once.

    Calls that share the sweep have the same costs, and so the same lengths of trainings that follow from them.

    Args:
        folder: The folder of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / COSTS_FILE
        self.costs = self._read()

    def _read(self) -> dict[str, StepCost]:
        stored = json.loads(self.path.read_text()) if self.path.is_file() else {}
        return {key: StepCost(*values) for key, values in stored.items()}

    def measure(self, settings: FinetuneConfig | PretrainConfig) -> StepCost:
        """Returns the cost of a step, by training a few steps from fresh weights if it is not stored."""
        key = _hash_timed_settings(settings)
        if key not in self.costs:
            locks = self.path.parent / PARTS_FOLDER
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{COSTS_FILE}.lock"):
                self.costs |= self._read()
                if key not in self.costs:
                    self.costs[key] = time_training(settings)
                    write_json(self.path, self.costs)
        return self.costs[key]

    def count_epochs(self, settings: FinetuneConfig | PretrainConfig, cpu_s: float) -> int:
        """Returns the number of epochs that take so many CPU seconds, at least 1."""
        return max(1, round(cpu_s / self.measure(settings).cpu_s / settings.train.steps_per_epoch))

    def measure_training(self, settings: FinetuneConfig | PretrainConfig) -> tuple[float, float]:
        """Returns the wall and CPU seconds of all steps of a training."""
        cost, steps = self.measure(settings), settings.train.total_steps
        return steps * cost.wall_s, steps * cost.cpu_s


def count_windows(test: Manifest, patch_size: tuple[int, int, int]) -> int:
    """Returns the number of windows that predict all test cases, on the grid of the store."""
    return sum(
        prod(1 + ceil(max(0, n - p) / (p / 2)) for n, p in zip(case.shape, patch_size, strict=True))
        for case in test.cases
    )


@dataclass(frozen=True)
class Compute:
    """Steps and minutes of a finished training; minutes of a GPU where one was used, else of the CPU.

    A run that is missing has no steps and no minutes. The trainings by which a run chose its method count as well.
    """

    steps: int = 0
    minutes: float = 0.0

    @classmethod
    def of_run(cls, path: Path | None) -> "Compute":
        """Reads what a run took."""
        if path is None:
            return cls()
        parts = [cls._of_training(run) for run in (path, *list_fold_runs(path))]
        return cls(sum(part.steps for part in parts), sum(part.minutes for part in parts))

    @classmethod
    def _of_training(cls, path: Path) -> "Compute":
        run = Run(path)
        if not run.is_finished:
            return cls()
        train, usage = run.read_settings().get("train") or {}, run.metadata.get("resource_usage", {})
        hours = usage.get("gpu_hours") or usage.get("cpu_hours", 0.0)
        return cls(int(train.get("epochs", 0)) * int(train.get("steps_per_epoch", 0)), 60 * float(hours))


NO_COMPUTE = Compute()


def average_compute(values: Sequence[Compute]) -> Compute:
    """Returns the mean steps and minutes of several trainings."""
    count = max(1, len(values))
    return Compute(round(sum(v.steps for v in values) / count), sum(v.minutes for v in values) / count)


def _hash_timed_settings(settings: FinetuneConfig | PretrainConfig) -> str:
    """Returns a hash of the settings that a step's cost depends on."""
    values: dict[str, Any] = settings.model_dump(mode="json", exclude=UNTIMED_KEYS)
    values["train"] = {key: value for key, value in values["train"].items() if key not in UNTIMED_TRAIN_KEYS}
    values.get("objective", {}).pop("seed", None)
    values["kind"] = type(settings).__name__
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

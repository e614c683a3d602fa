"""Saves the state of a training so that it resumes at the next step, and stops a training that should stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from medssl.data.crops import Crops
from medssl.errors import BadInput, Stopped
from medssl.nn.collectives import is_distributed
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import LoadingFailed
from medssl.training.fault_tolerance import checkpoint_files
from medssl.training.fault_tolerance.checkpoint_files import BEST, STEP, checkpoint_path
from medssl.training.fault_tolerance.limits import StopRequest
from medssl.training.processes.agreement import find_any, gather_values


class RunCheckpoints(Checkpoint):
    """Writes a checkpoint after every epoch and, within an epoch, from time to time and when the training must stop.

    The checkpoint before the last step of an epoch with a validation is always written, because a training that is
    stopped during the validation resumes there.

    Args:
        folder: Folder of the run.
        config: Number of batches per optimizer step.
        request: Decides when to stop.
        monitor: Validation score whose maximum decides which weights are kept; None without validation.
    """

    def __init__(self, folder: Path, config: TrainConfig, request: StopRequest, monitor: str | None) -> None:
        self.folder, self.config, self.request, self.monitor = folder, config, request, monitor
        self.best_score: float | None = None
        self.best_step = 0
        self.rng_state: dict[str, Tensor] | None = None
        self.epoch = self.num_batches = 0
        self.is_validating = self.is_between_steps = False
        self.last_save = time.monotonic()

    @property
    def best_path(self) -> Path:
        """The checkpoint with the best validation score."""
        return checkpoint_path(self.folder, BEST, self.best_step)

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Saves and stops the training on SIGINT, SIGTERM and SIGUSR1 while the block runs."""
        with self.request.catch_signals(self._stop_validation):
            yield

    def after_batch(self, trainer: Trainer, index: int) -> None:
        """Saves if it is time, and stops if it should; called at the very end of every batch.

        Raises:
            Stopped: The state is saved and the training should stop.
        """
        self.epoch, self.num_batches = trainer.current_epoch, index + 1
        num_batches, accumulated = int(trainer.num_training_batches), self.config.accumulate_grad_batches
        if (index + 1) % accumulated or index + 1 >= num_batches:
            return
        before_validation = index + 1 == num_batches - accumulated and self._validates_after(trainer)
        minutes = (time.monotonic() - self.last_save) / 60
        must_stop, is_due = find_any(bool(self.request.reason), minutes >= self.request.config.checkpoint_minutes)
        if must_stop or before_validation or is_due:
            self._save(trainer)
        if must_stop:
            self._stop(trainer.global_step, self._find_reason())
        self.is_between_steps = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Notes that a step has begun, within which nothing can be saved."""
        self.is_between_steps = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves the state after the last step if an error came from a loader; a full disk cannot take it.

        Several processes save together, so that they cannot after an error of one of them alone.
        """
        is_shared = isinstance(exception, LoadingFailed) or not is_distributed()
        if self.is_between_steps and is_shared and isinstance(exception, Exception):
            with suppress(OSError):
                self._save(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the random state of a resumed training, and replaces Lightning's own signal handlers."""
        self.request.install_handlers()
        if self.rng_state is not None:
            torch.set_rng_state(self.rng_state["cpu"])
            if "cuda" in self.rng_state and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.rng_state["cuda"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after every epoch."""
        self.epoch, self.num_batches = trainer.current_epoch + 1, 0
        self._save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops if there was a reason at the end of the epoch before, whose scores are logged by now."""
        if self.epoch and any(find_any(bool(self.request.reason))):
            self._stop(trainer.global_step, self._find_reason())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets a signal stop the training at once: the state from before the validation is saved."""
        self.is_validating = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights if their score is the best so far."""
        self.is_validating = False
        score = trainer.callback_metrics.get(self.monitor or "")
        if score is not None and float(score) > (-float("inf") if self.best_score is None else self.best_score):
            self.best_score, self.best_step = float(score), trainer.global_step
            trainer.save_checkpoint(self.best_path)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in the data, the best score and the random state."""
        rng_state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            rng_state["cuda"] = torch.cuda.get_rng_state()
        names = ("best_score", "best_step", "epoch", "num_batches")
        return {name: getattr(self, name) for name in names} | {"rng_state": rng_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of `state_dict`."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _validates_after(self, trainer: Trainer) -> bool:
        every = trainer.check_val_every_n_epoch or 1
        return bool(trainer.enable_validation) and (trainer.current_epoch + 1) % every == 0

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(checkpoint_path(self.folder, STEP, trainer.global_step))
        self.last_save = time.monotonic()

    def _stop_validation(self) -> None:
        paths = checkpoint_files.list_checkpoints(self.folder, STEP)
        if self.is_validating and paths:
            self._stop(int(paths[0].stem.partition("-")[2]), self.request.reason)

    def _find_reason(self) -> str:
        """Returns why the training should stop, from the first process that has a reason."""
        return next(reason for reason in gather_values(self.request.reason) if reason)

    def _stop(self, step: int, reason: str) -> None:
        raise Stopped(
            f"{self.folder}: {reason}; the state after step {step} is saved, resume=true continues there",
            self.request.exit_code,
        )


def read_position(path: Path) -> tuple[int, int]:
    """Returns the epoch and the number of batches in it after which a checkpoint was written.

    Raises:
        BadInput: The file is no checkpoint of a training, even if its checksum fits.
    """
    try:
        state = torch.load(path, weights_only=True, mmap=True)["callbacks"][RunCheckpoints.__qualname__]
    except (UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, EOFError):
        raise BadInput(f"{path}: is no checkpoint of a training, and nothing in it was run; delete the file") from None
    return int(state["epoch"]), int(state["num_batches"])

"""Progress of a training for the user: one progress bar, and preview images of what is being learnt."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich import progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from medssl.data.crops import Crops
from medssl.files import atomic_file
from medssl.nn.collectives import count_processes
from medssl.objectives.base import Objective
from medssl.render.figures import reconstruction_preview
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import TrainBatches, uses_gpu
from medssl.training.processes.agreement import is_main_process

log = logging.getLogger(__name__)
MESSAGE_INTERVAL_S = 0.5
LINE_INTERVAL_S = 60.0  # between two lines within an epoch, without a terminal
MAX_LOADER_WAIT = 0.1  # fraction of the time of a training on a GPU; a longer one is warned of


class ProgressBar(Callback):
    """Shows one bar over all batches with loss, crops per second, the fraction of the time that the training waits for
    its crops, and remaining time; without a terminal, a line per epoch, and a line a minute within long ones.
    """

    def __init__(self, config: TrainConfig) -> None:
        console = Console(stderr=True)
        self.total = config.total_steps * config.accumulate_grad_batches
        self.epochs, self.next_message_s, self.has_warned = config.epochs, 0.0, not uses_gpu(config)
        self.is_shown = is_main_process()
        self.prints_lines = self.is_shown and not console.is_terminal
        self.bar = progress.Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[message]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, disable=self.prints_lines or not self.is_shown, transient=False,
        )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the bar, for a resumed training at the resumed batch."""
        self.first, self.start = self._count_batches(trainer), time.monotonic()
        self.waited_before_s, self.last_line = _read_wait_s(trainer), self.start
        self.task = self.bar.add_task("training", total=self.total, completed=self.first, message="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Crops, batch_idx: int
    ) -> None:
        """Advances the bar by one batch."""
        completed, seconds = self._count_batches(trainer), max(1e-9, time.monotonic() - self.start)
        num_crops = (completed - self.first) * len(batch.x) * count_processes()
        self.crops_per_s, self.loader_wait = (
            num_crops / seconds,
            (_read_wait_s(trainer) - self.waited_before_s) / seconds,
        )
        if not trainer.is_last_batch and seconds < self.next_message_s:
            return  # reading the loss makes the CPU wait for a GPU
        self.next_message_s = seconds + MESSAGE_INTERVAL_S
        loss = float(outputs["loss"])
        self.message = f"loss {loss:.3f}  {self.crops_per_s:.1f} crops/s  waits for crops {self.loader_wait:.0%}"
        self.bar.update(self.task, completed=completed, message=self.message)
        if self.prints_lines and time.monotonic() - self.last_line >= LINE_INTERVAL_S:
            self._print_line(f"step {completed}/{self.total}  {self.message}", completed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the speed and, without a terminal, prints a line with the scores of the epoch."""
        pl_module.log_dict({"crops_per_s": self.crops_per_s, "loader_wait": self.loader_wait})
        if self.is_shown and self.loader_wait > MAX_LOADER_WAIT and not self.has_warned:
            self.has_warned = True
            log.warning(
                "the training waits for its crops %.0f %% of the time; raise train.num_workers, or lower augment",
                100 * self.loader_wait,
            )
        if self.prints_lines:
            scores = "  ".join(
                f"{name} {float(value):.4g}"
                for name, value in sorted(trainer.callback_metrics.items())
                if name not in ("loss", "crops_per_s", "loader_wait") and not name.startswith("monitor_")
            )
            epoch = f"epoch {trainer.current_epoch + 1}/{self.epochs}"
            self._print_line(f"{epoch}  {self.message}  {scores}", self._count_batches(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops the bar, also after an error."""
        self.bar.stop()

    def _print_line(self, text: str, completed: int) -> None:
        self.last_line = time.monotonic()
        seconds = (self.last_line - self.start) / max(1, completed - self.first) * (self.total - completed)
        sys.stderr.write(f"{text}  left {seconds / 60:.1f} min\n")

    def _count_batches(self, trainer: Trainer) -> int:
        return trainer.fit_loop.total_batch_idx + 1


class PreviewWriter(Callback):
    """Writes the objective's preview of the first batch, after about ten epochs including the first and the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.crops: Crops | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Keeps the first batch."""
        if self.crops is None:
            self.crops = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the preview, without changing gradients or random state."""
        epoch, learner = trainer.current_epoch + 1, pl_module.learner
        is_due = epoch == 1 or epoch == trainer.max_epochs or epoch % max(1, (trainer.max_epochs or 1) // 10) == 0
        if not (is_due and isinstance(learner, Objective) and self.crops is not None and trainer.is_global_zero):
            return
        with torch.no_grad(), torch.random.fork_rng():
            learner.eval()
            volumes = {name: x.float().cpu().numpy() for name, x in learner.preview(self.crops).items()}
            learner.train()
        if volumes:
            with atomic_file(self.folder / f"epoch_{epoch:04d}.png") as part:
                reconstruction_preview(volumes).save(part)


def _read_wait_s(trainer: Trainer) -> float:
    """Returns how many seconds the training has waited for its batches."""
    batches = trainer.train_dataloader
    return batches.waited_s if isinstance(batches, TrainBatches) else 0.0

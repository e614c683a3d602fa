"""What a person sees of a training: one progress bar, and pictures of what is being learnt."""

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
from medssl.files import atomic
from medssl.objectives.base import Objective
from medssl.render.figures import preview
from medssl.training.config import Plan


class Progress(Callback):
    """One bar over all steps with loss, volumes per second and the time that is left; a line an epoch in a log file."""

    def __init__(self, plan: Plan) -> None:
        console = Console(stderr=True)
        self.plan = plan
        self.lines = not console.is_terminal
        self.bar = progress.Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, disable=self.lines, transient=False,
        )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows where the training starts: a resumed one starts in the middle."""
        total = self.plan.total * self.plan.accumulate
        self.task = self.bar.add_task("training", total=total, completed=self._seen(trainer), said="")
        self.bar.start()
        self.first, self.began = self._seen(trainer), time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Crops, batch_idx: int
    ) -> None:
        """One step on."""
        self.rate = self._rate(trainer, batch)
        said = f"loss {float(outputs['loss']):.3f}  {self.rate:.1f} crops/s"
        self.bar.update(self.task, completed=self._seen(trainer), said=said)
        self.said = said

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The speed in the log; a line an epoch where there is no terminal."""
        pl_module.log("crops_per_s", self.rate)
        if self.lines:
            numbers = "  ".join(
                f"{k} {float(v):.4g}"
                for k, v in sorted(trainer.callback_metrics.items())
                if k not in ("loss", "crops_per_s") and not k.startswith("monitor_")
            )
            left = (time.monotonic() - self.began) / max(1, self._seen(trainer) - self.first)
            left *= self.plan.total * self.plan.accumulate - self._seen(trainer)
            epoch = f"epoch {trainer.current_epoch + 1}/{self.plan.epochs}"
            sys.stderr.write(f"{epoch}  {self.said}  {numbers}  left {left / 60:.1f} min\n")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The bar ends whatever ends the training."""
        self.bar.stop()

    def _seen(self, trainer: Trainer) -> int:
        return trainer.fit_loop.total_batch_idx + 1

    def _rate(self, trainer: Trainer, batch: Crops) -> float:
        return (self._seen(trainer) - self.first) * len(batch.x) / max(1e-9, time.monotonic() - self.began)


class Previews(Callback):
    """Writes what an objective shows of the first batch it ever saw, at the first, each tenth and the last epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.crops: Crops | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Keeps one batch to look at."""
        if self.crops is None:
            self.crops = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, without touching gradients or random state."""
        epoch, learner = trainer.current_epoch + 1, pl_module.learner
        due = epoch == 1 or epoch == trainer.max_epochs or epoch % max(1, (trainer.max_epochs or 1) // 10) == 0
        if not (due and isinstance(learner, Objective) and self.crops is not None and trainer.is_global_zero):
            return
        with torch.no_grad(), torch.random.fork_rng():
            learner.eval()
            shown = {name: x.float().cpu().numpy() for name, x in learner.preview(self.crops).items()}
            learner.train()
        if shown:
            with atomic(self.folder / f"epoch_{epoch:04d}.png") as part:
                preview(shown).save(part)

"""A watchdog: warns of a training that makes no progress, and names the stage and the line of code where it waits."""

import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from medssl.data.crops import Crops

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[2]  # medssl


class Watchdog(Callback):
    """Logs a warning when a stage lasts longer than a limit, and again whenever that time has doubled.

    Args:
        minutes: The limit.
    """

    def __init__(self, minutes: float) -> None:
        self.limit_s = 60 * minutes
        self.main_thread = threading.get_ident()
        self.ended = threading.Event()
        self._enter("starting")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to watch."""
        self._enter("loading the first batch")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Enters the training step."""
        self._enter(f"training step {trainer.global_step + 1}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Crops, batch_idx: int
    ) -> None:
        """Enters the time between two steps, in which a batch is loaded or a checkpoint is written."""
        self._enter(f"loading the batch after step {trainer.global_step}")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Enters the validation of one case."""
        self._enter(f"validating case {batch_idx + 1}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enters the end of an epoch, with its previews, its probe and its checkpoint."""
        self._enter(f"ending epoch {trainer.current_epoch + 1}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops to watch."""
        self.ended.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops to watch a training that failed, which Lightning does not tear down."""
        self.ended.set()

    def _enter(self, stage: str) -> None:
        self.stage, self.since, self.next_warning_s = stage, time.monotonic(), self.limit_s

    def _watch(self) -> None:
        while not self.ended.wait(self.limit_s / 10):
            seconds = time.monotonic() - self.since
            if seconds >= self.next_warning_s:
                log.warning("no progress for %.1f minutes while %s, at %s", seconds / 60, self.stage, self._find_line())
                self.next_warning_s = 2 * seconds

    def _find_line(self) -> str:
        """Returns the line of this package that the training thread is in."""
        frame = sys._current_frames().get(self.main_thread)
        lines = [line for line in traceback.extract_stack(frame) if PACKAGE in Path(line.filename).parents]
        return f"{lines[-1].filename}:{lines[-1].lineno} in {lines[-1].name}" if lines else "an unknown line"

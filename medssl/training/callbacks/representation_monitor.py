"""Monitors the embeddings of a pretraining at small cost and warns of representation collapse."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from medssl.data.crop_geometry import crop_positions
from medssl.data.crops import Crops
from medssl.run import Run
from medssl.training.representation_metrics import (
    MIN_ROWS,
    RANK_ROWS,
    CollapseAlarm,
    EmbeddingBuffer,
    paired_embeddings,
)

log = logging.getLogger(__name__)

BUDGET = 0.025  # fraction of the time of all steps that the monitor may use
FEET_TO_HEAD, NUM_BODY_PARTS = 2, 4


class RepresentationMonitor(Callback):
    """Logs rank, spread, alignment, uniformity and kNN accuracy once per epoch, and records a collapse in the run.

    The first samples are taken before the first step at any cost, because the alarm compares with the untrained
    network. The current state is measured on the last samples of an epoch. Samples in between serve the rank, which
    needs many rows. The main process of a training measures its own crops; the others measure none.

    Args:
        run: Run to record a collapse in.
        labels: Words known for every volume without annotation, such as its site, one per volume number.
    """

    def __init__(self, run: Run, labels: Mapping[str, Sequence[str]] | None = None) -> None:
        self.run = run
        self.labels = labels or {}
        self.alarm = CollapseAlarm()
        self.buffer: EmbeddingBuffer | None = None
        self.alarmed = False
        self.num_samples = 0
        self.training_s = self.monitoring_s = self.last_sample_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, to which a resumed training adds its earlier time, and sets the bound of the alarm."""
        self.alarm.min_ratio = pl_module.learner.min_spread_fraction
        self.start = time.monotonic() - self.training_s

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Samples an objective without embeddings of its own by an extra forward pass, within the time budget."""
        self.training_s = time.monotonic() - self.start
        if not pl_module.learner.is_contrastive and self.is_due(trainer, batch, batch_idx):
            start = _read_clock(batch)
            with trainer.precision_plugin.train_step_context():
                a, b = paired_embeddings(pl_module.learner, batch, self.num_samples)
            self.record(batch, a, b, start)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Crops, batch_idx: int
    ) -> None:
        """Samples the positive pairs that the training step computed, which needs no forward pass."""
        if pl_module.positive_pairs is not None and self.is_due(trainer, batch, batch_idx):
            a, b = pl_module.positive_pairs
            self.record(batch, a.float(), b.float(), _read_clock(batch))

    def record(self, batch: Crops, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], start: float) -> None:
        """Adds the positive pairs of a batch to the buffer and checks the alarm; `start` is the clock before them."""
        if self.buffer is None:
            self.buffer = EmbeddingBuffer(max(RANK_ROWS, 2 * a.shape[1]), a.shape[1])
        positions = crop_positions(batch, FEET_TO_HEAD)
        self.buffer.push(a=a, b=b, volume=positions.volume, part=positions.partition_index(NUM_BODY_PARTS))
        self.check_alarm(self.buffer.measure_recent())
        self.num_samples += 1
        self.last_sample_s = _read_clock(batch) - start
        self.monitoring_s += self.last_sample_s

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the metrics of all rows in the buffer."""
        if not trainer.is_global_zero:
            return
        start = time.monotonic()
        metrics = self.buffer.measure(self.labels) if self.buffer else {}
        self.check_alarm(metrics)
        self.monitoring_s += time.monotonic() - start
        self.training_s = time.monotonic() - self.start
        metrics["share"] = self.monitoring_s / max(1e-9, self.training_s - self.monitoring_s)
        pl_module.log_dict({f"monitor_{name}": value for name, value in metrics.items()}, on_epoch=True)

    def is_due(self, trainer: Trainer, batch: Crops, batch_idx: int) -> bool:
        """Whether to sample this batch: always until the buffer has enough rows, then within the time budget.

        The last samples of an epoch may borrow from the time of the remaining training. Only the main process samples.
        """
        if not trainer.is_global_zero:
            return False
        if self.buffer is None or self.buffer.pushed < MIN_ROWS:
            return True
        num_batches = trainer.num_training_batches
        remaining, rows = num_batches - batch_idx, batch.x.shape[0] * batch.x.shape[1]
        allowed_s = BUDGET * (self.training_s - self.monitoring_s)
        if remaining * rows < MIN_ROWS + rows:
            num_seen = num_batches * trainer.current_epoch + batch_idx + 1
            allowed_s *= num_batches * (trainer.max_epochs or 1) / num_seen
        else:
            allowed_s /= 2
        return self.monitoring_s + self.last_sample_s <= allowed_s

    def check_alarm(self, metrics: dict[str, float]) -> None:
        """Warns of a collapse once, in the log and in run.json."""
        message = self.alarm.check(metrics)
        if message and not self.alarmed:
            self.alarmed = True
            log.warning("%s; see docs/how-to/pretrain.md, or stop and lower train.lr", message)
            self.run.update_metadata(collapsed=True, alarm=message)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that a resumed training continues from."""
        names = ("alarmed", "num_samples", "training_s", "monitoring_s", "last_sample_s")
        buffer = self.buffer.state_dict() if self.buffer else None
        return {name: getattr(self, name) for name in names} | {"baseline": self.alarm.baseline, "buffer": buffer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of `state_dict`."""
        state = dict(state_dict)
        self.alarm.baseline, buffer = state.pop("baseline"), state.pop("buffer")
        for name, value in state.items():
            setattr(self, name, value)
        if buffer is not None:
            self.buffer = EmbeddingBuffer(*buffer["a"].shape)
            self.buffer.load_state_dict(buffer)


def _read_clock(crops: Crops) -> float:
    """Returns the time after the device has finished its queued work."""
    if crops.x.is_cuda:
        torch.cuda.synchronize(crops.x.device)
    return time.monotonic()

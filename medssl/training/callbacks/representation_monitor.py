"""Watches a pretraining while it runs: embeddings are measured at small cost, and a collapse is told at once."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from medssl.data.crop_geometry import places
from medssl.data.crops import Crops
from medssl.run import Run
from medssl.training.representation_metrics import SEVERAL, Alarm, Memory, embedded

log = logging.getLogger(__name__)

BUDGET = 0.025  # share of the time of all steps that looking may take
FEET_TO_HEAD, PARTS = 2, 4


class Monitors(Callback):
    """Logs rank, spread, alignment, uniformity and kNN accuracy once an epoch; notes in the run that it collapsed.

    The first looks come before the first step, whatever they cost: an alarm compares with the untrained network.
    The looks that tell the present are the last ones of an epoch. What is left is for the rank, which needs many rows.
    `labels` tell what is known of every volume for nothing, as its site.
    """

    def __init__(self, run: Run, labels: Mapping[str, Sequence[str]] | None = None) -> None:
        self.run = run
        self.labels = labels or {}
        self.alarm = Alarm()
        self.memory: Memory | None = None
        self.rung = False
        self.looks = 0
        self.seconds = self.spent = self.cost = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a resumed training adds to what an earlier one took."""
        self.began = time.monotonic() - self.seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Looks at an objective that compares nothing by a forward of its own, where this can be afforded."""
        self.seconds = time.monotonic() - self.began
        if not pl_module.learner.compares and self.due(trainer, batch, batch_idx):
            began = _clock(batch)
            with trainer.precision_plugin.train_step_context():
                a, b = embedded(pl_module.learner, batch, self.looks)
            self.remember(batch, a, b, began)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Crops, batch_idx: int
    ) -> None:
        """Looks at what the step itself compared, which costs no forward."""
        if pl_module.pairs is not None and self.due(trainer, batch, batch_idx):
            a, b = pl_module.pairs
            self.remember(batch, a.float(), b.float(), _clock(batch))

    def remember(self, batch: Crops, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], began: float) -> None:
        """Keeps a batch's true pairs, and listens for the alarm."""
        if self.memory is None:
            self.memory = Memory(max(SEVERAL, 2 * a.shape[1]), a.shape[1])
        place = places(batch, FEET_TO_HEAD)
        self.memory.push(a=a, b=b, volume=place.volume, part=place.partition(PARTS))
        self.listen(self.memory.recent())
        self.looks += 1
        self.cost = _clock(batch) - began
        self.spent += self.cost

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures all that is remembered."""
        began = time.monotonic()
        measured = self.memory.measure(self.labels) if self.memory else {}
        self.listen(measured)
        self.spent += time.monotonic() - began
        self.seconds = time.monotonic() - self.began
        measured["share"] = self.spent / max(1e-9, self.seconds - self.spent)
        pl_module.log_dict({f"monitor_{name}": value for name, value in measured.items()}, on_epoch=True)

    def due(self, trainer: Trainer, batch: Crops, batch_idx: int) -> bool:
        """Whether to look: always to begin with, then where it can be afforded.

        The last looks of an epoch may borrow from the time that the rest of the training will take.
        """
        if self.memory is None or self.memory.pushed < SEVERAL:
            return True
        ends = trainer.num_training_batches
        left, rows = ends - batch_idx, batch.x.shape[0] * batch.x.shape[1]
        allowed = BUDGET * (self.seconds - self.spent)
        if left * rows < SEVERAL + rows:
            allowed *= ends * (trainer.max_epochs or 1) / (ends * trainer.current_epoch + batch_idx + 1)
        else:
            allowed /= 2
        return self.spent + self.cost <= allowed

    def listen(self, measured: dict[str, float]) -> None:
        """Tells a collapse once: to the person who watches, and to the run."""
        said = self.alarm.look(measured)
        if said and not self.rung:
            self.rung = True
            log.warning("%s; see docs/guide.md, or stop and lower plan.lr", said)
            self.run.note(collapsed=True, alarm=said)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training goes on from."""
        names = ("rung", "looks", "seconds", "spent", "cost")
        memory = self.memory.state_dict() if self.memory else None
        return {name: getattr(self, name) for name in names} | {"first": self.alarm.first, "memory": memory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers what was remembered."""
        state = dict(state_dict)
        self.alarm.first, memory = state.pop("first"), state.pop("memory")
        for name, value in state.items():
            setattr(self, name, value)
        if memory is not None:
            self.memory = Memory(*memory["a"].shape)
            self.memory.load_state_dict(memory)


def _clock(crops: Crops) -> float:
    """The time once the device has done what it was given."""
    if crops.x.is_cuda:
        torch.cuda.synchronize(crops.x.device)
    return time.monotonic()

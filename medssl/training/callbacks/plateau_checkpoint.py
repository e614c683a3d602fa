"""Plateau: the state in which an infinite schedule begins to anneal, kept for another training to go on from.

Singh et al., "Beyond cosine decay: on the effectiveness of infinite learning rate schedule for continual pre-training"
(2025), https://arxiv.org/abs/2503.02844.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.interop import weight_transfer as transfer
from medssl.nn.ring_buffer import Ring
from medssl.run import Run
from medssl.training.config import Plan

NAME = "plateau.safetensors"
MOMENTS = "optimizer"


class Plateau(Callback):
    """Writes the learner and its optimiser into the run on the last step before the annealing."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Crops, batch_idx: int) -> None:
        """Keeps what has just left the plateau."""
        if trainer.global_step == self.plan.annealing and batch_idx % self.plan.accumulate == 0:
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the end of a training that never anneals."""
        if self.plan.annealing == self.plan.total == trainer.global_step:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, pl_module: LightningModule) -> None:
        transfer.write(state(pl_module.learner, trainer.optimizers[0]), self.run.path / NAME)


def read(run: Run) -> dict[str, Tensor]:
    """The plateau of a finished run."""
    path = run.path / NAME
    if not path.is_file():
        raise BadInput(f"{path}: this run left no plateau; continue from one with plan.schedule=infinite")
    return transfer.read(path)


def state(learner: nn.Module, rule: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every weight and buffer by name, and what the optimiser remembers of each weight."""
    moments = {
        f"{MOMENTS}/{kind}/{name}": value
        for name, weight in learner.named_parameters()
        for kind, value in rule.state.get(weight, {}).items()
    }
    return _own(learner) | moments


def restore(learner: nn.Module, plateau: Mapping[str, Tensor]) -> None:
    """Gives a learner its weights back; what it remembers of single volumes is forgotten, as the data may be others."""
    own = _own(learner)
    kept = {name: value for name, value in plateau.items() if not name.startswith(f"{MOMENTS}/")}
    unlike = own.keys() ^ kept.keys() or {n for n in own if own[n].shape != kept[n].shape}
    if unlike:
        raise BadInput(
            f"the plateau is of another network: {', '.join(sorted(unlike)[:3])}; keep encoder and objective"
        )
    with torch.no_grad():
        for name, value in kept.items():
            own[name].copy_(value)
        for module in learner.modules():
            if isinstance(module, Ring):
                module.pushed.zero_()


def recall(rule: torch.optim.Optimizer, learner: nn.Module, plateau: Mapping[str, Tensor]) -> None:
    """Gives an optimiser its memory of every weight back."""
    weights = dict(learner.named_parameters())
    for key, value in plateau.items():
        kind, _, name = key.removeprefix(f"{MOMENTS}/").partition("/")
        if key.startswith(f"{MOMENTS}/") and weights[name].requires_grad:
            told: dict[str, Any] = rule.state[weights[name]]
            # Torch counts steps on the processor, wherever the weights lie.
            told[kind] = value.clone() if kind == "step" else value.to(weights[name].device, copy=True)


def _own(learner: nn.Module) -> dict[str, Tensor]:
    """Shared ones once: a safetensors file holds no tensor twice."""
    return dict(learner.named_parameters()) | dict(learner.named_buffers())

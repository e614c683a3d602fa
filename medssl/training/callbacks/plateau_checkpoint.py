"""Checkpoint of the learning-rate plateau of an infinite schedule, from which another training can continue.

Singh et al., "Beyond cosine decay: on the effectiveness of infinite learning rate schedule for continual pre-training"
(2025), https://arxiv.org/abs/2503.02844.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.nn.interop import weight_transfer
from medssl.nn.ring_buffer import RingBuffer
from medssl.run import Run
from medssl.training.config import TrainConfig

FILE_NAME = "plateau.safetensors"
OPTIMIZER_PREFIX = "optimizer"


class PlateauCheckpoint(Callback):
    """Writes learner and optimizer state into the run at the last step before annealing."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self.run, self.config = run, config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the initial state of a training that anneals from the first step."""
        if trainer.global_step == self.config.anneal_start == 0:
            self._save(trainer)

    def after_batch(self, trainer: Trainer, index: int) -> None:
        """Saves the plateau at the very end of the step before annealing; no mask of the next step is drawn yet."""
        if trainer.global_step == self.config.anneal_start and (index + 1) % self.config.accumulate_grad_batches == 0:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        weight_transfer.write_tensors(
            plateau_state(trainer.lightning_module.learner, trainer.optimizers[0]), self.run.path / FILE_NAME
        )


def read_plateau(run: Run) -> dict[str, Tensor]:
    """Reads the plateau of a finished run.

    Raises:
        BadInput: The run has no plateau, because its schedule was not infinite.
    """
    path = run.path / FILE_NAME
    if not path.is_file():
        raise BadInput(f"{path}: this run has no plateau; give a run that was trained with train.schedule=infinite")
    return weight_transfer.read_tensors(path)


def plateau_state(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns all parameters and buffers by name, and the optimizer state of every parameter."""
    optimizer_state = {
        f"{OPTIMIZER_PREFIX}/{kind}/{name}": value
        for name, weight in learner.named_parameters()
        for kind, value in optimizer.state.get(weight, {}).items()
    }
    return _named_tensors(learner) | optimizer_state


def load_learner(learner: nn.Module, plateau: Mapping[str, Tensor]) -> None:
    """Restores parameters and buffers in place, and empties ring buffers, because the data may be different.

    Raises:
        BadInput: The plateau belongs to another network.
    """
    tensors = _named_tensors(learner)
    saved = {name: value for name, value in plateau.items() if not name.startswith(f"{OPTIMIZER_PREFIX}/")}
    different = tensors.keys() ^ saved.keys() or {n for n in tensors if tensors[n].shape != saved[n].shape}
    if different:
        raise BadInput(
            f"the plateau belongs to another network, which differs in {', '.join(sorted(different)[:3])};"
            " use the same encoder and objective"
        )
    with torch.no_grad():
        for name, value in saved.items():
            tensors[name].copy_(value)
        for module in learner.modules():
            if isinstance(module, RingBuffer):
                module.pushed.zero_()


def load_optimizer(optimizer: torch.optim.Optimizer, learner: nn.Module, plateau: Mapping[str, Tensor]) -> None:
    """Restores the optimizer state of every trainable parameter in place, by the names of the parameters."""
    weights = dict(learner.named_parameters())
    for key, value in plateau.items():
        kind, _, name = key.removeprefix(f"{OPTIMIZER_PREFIX}/").partition("/")
        if key.startswith(f"{OPTIMIZER_PREFIX}/") and weights[name].requires_grad:
            state: dict[str, Any] = optimizer.state[weights[name]]
            # PyTorch keeps the step count on the CPU, whatever the device of the weights.
            state[kind] = value.clone() if kind == "step" else value.to(weights[name].device, copy=True)


def _named_tensors(learner: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers; shared ones occur once, as a safetensors file requires."""
    return dict(learner.named_parameters()) | dict(learner.named_buffers())

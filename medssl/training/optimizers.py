"""Optimizers: learning rate and weight decay of every parameter, and the LAMB update rule."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medssl.nn.encoder import Encoder
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.config import TrainConfig


def build_optimizer(learner: Objective | Task, config: TrainConfig) -> torch.optim.Optimizer:
    """Returns the configured optimizer over all trainable parameters of an objective or a task.

    Norms, biases and tokens do not decay. Learning rates follow `group_parameters`.
    """
    groups = group_parameters(learner, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay)
    optimizer_class = Lamb if config.optimizer == "lamb" else torch.optim.AdamW
    return optimizer_class(groups, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay)


def group_parameters(learner: Objective | Task, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups the trainable parameters by learning rate and weight decay, in the form that torch optimizers take."""
    depends_on_level = config.layer_decay < 1 or config.finest_lr_scale != config.coarser_lr_scale
    levels = find_finest_levels(learner.encoder) if depends_on_level else {}
    groups: dict[tuple[float, bool], list[Tensor]] = defaultdict(list)
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            lr = config.lr * _parameter_lr_scale(name.removeprefix("student."), levels, config)
            groups[lr, weight.ndim > 1 and "token" not in name].append(weight)
    return [
        {"params": weights, "lr": lr, "weight_decay": config.weight_decay if decays else 0.0}
        for (lr, decays), weights in groups.items()
    ]


def _parameter_lr_scale(name: str, levels: Mapping[str, int], config: TrainConfig) -> float:
    """Returns the factor on lr for a parameter, from its part of the network and its level in that part."""
    part, _, name_in_part = name.partition(".")
    if part == "decoder":
        return config.finest_lr_scale if name_in_part.split(".")[1:2] == ["0"] else config.coarser_lr_scale
    if part != "encoder":
        return config.head_lr_scale
    deepest = max(levels.values(), default=0)
    level = levels.get(name_in_part, deepest)
    level_scale = config.finest_lr_scale if levels and level == 0 else config.coarser_lr_scale
    return config.encoder_lr_scale * level_scale * config.layer_decay ** (1 + deepest - level)


def find_finest_levels(encoder: Encoder) -> dict[str, int]:
    """Returns, for every parameter of an encoder, the finest level of its feature pyramid that depends on it.

    The levels come from gradients on a blank crop, so the function works for any encoder architecture.
    """
    probe = copy.deepcopy(encoder).eval().requires_grad_(True)
    weights = dict(probe.named_parameters())
    shape = (2 * n for n in encoder.patch)  # the smallest crop that every norm accepts
    pyramid = probe(torch.zeros(1, encoder.in_channels, *shape, device=next(probe.parameters()).device))
    levels: dict[str, int] = {}
    for level, features in enumerate(pyramid):
        gradients = torch.autograd.grad(features.sum(), list(weights.values()), retain_graph=True, allow_unused=True)
        levels = {n: level for n, g in zip(weights, gradients, strict=True) if g is not None} | levels
    return levels


def make_ema_update(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Returns the update of an exponential moving average, in the form that Lightning's `WeightAveraging` takes.

    A weight that does not change equals its average to the bit. Integer tensors (counters, masks) are copied.
    """
    return lambda average, current, step: (
        average + (1 - decay) * (current - average) if current.is_floating_point() else current
    )


class Lamb(torch.optim.Optimizer):
    """LAMB: Adam with decoupled weight decay, where each tensor's update is scaled to the norm of the tensor.

    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes" (2020),
    https://arxiv.org/abs/1904.00962, algorithm 2 with phi the identity. Deviation: tensors without decay (norms,
    biases, tokens) take Adam's step, because a tensor that starts at 0 would otherwise never grow.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters by one step; a closure, if given, first recomputes the loss and the gradients."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update_weight(weight, group)
        return loss

    def _update_weight(self, weight: Tensor, group: dict[str, Any]) -> None:
        """Applies algorithm 2 of the paper to one tensor."""
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            state |= moments | {"step": torch.zeros(())}
        state["step"] += 1
        n = float(state["step"])
        m = state["exp_avg"].lerp_(weight.grad, 1 - first) / (1 - first**n)
        v = state["exp_avg_sq"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second) / (1 - second**n)
        change = m / (v.sqrt() + group["eps"])
        trust = torch.ones(())
        if group["weight_decay"] > 0:
            change = change.add(weight, alpha=group["weight_decay"])
            weight_norm, change_norm = weight.norm(), change.norm()
            trust = torch.where((weight_norm > 0) & (change_norm > 0), weight_norm / change_norm, 1.0)
        weight.sub_(change * (group["lr"] * trust))

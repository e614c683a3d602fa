"""Optimisers: which weights learn how fast, and by which rule."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medssl.nn.encoder import Encoder
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.config import Plan


def optimizer(learner: Objective | Task, plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimiser on every weight that learns; norms, biases and tokens do not decay."""
    rule = Lamb if plan.optimizer == "lamb" else torch.optim.AdamW
    return rule(groups(learner, plan), weight_decay=plan.weight_decay)


def groups(learner: Objective | Task, plan: Plan) -> list[dict[str, Any]]:
    """Weights that share a learning rate and a decay."""
    levels = acting(learner.encoder) if plan.layer_decay < 1 or plan.finest_lr != plan.coarser_lr else {}
    alike: dict[tuple[float, bool], list[Tensor]] = defaultdict(list)
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            rate = plan.lr * _share(name.removeprefix("student."), levels, plan)
            alike[rate, weight.ndim > 1 and "token" not in name].append(weight)
    return [
        {"params": weights, "lr": rate, "weight_decay": plan.weight_decay if decays else 0.0}
        for (rate, decays), weights in alike.items()
    ]


def _share(name: str, levels: Mapping[str, int], plan: Plan) -> float:
    """Which share of its learning rate a plan gives a weight: by its part of the network, and by its level there."""
    part, _, own = name.partition(".")
    if part == "decoder":
        return plan.finest_lr if own.split(".")[1:2] == ["0"] else plan.coarser_lr
    if part != "encoder":
        return plan.heads_lr
    deepest = max(levels.values(), default=0)
    level = levels.get(own, deepest)
    by_level = plan.finest_lr if levels and level == 0 else plan.coarser_lr
    return plan.encoder_lr * by_level * plan.layer_decay ** (1 + deepest - level)


def acting(encoder: Encoder) -> dict[str, int]:
    """The finest level that each weight acts on, whatever the network is built of: told by which maps it changes."""
    copied = copy.deepcopy(encoder).eval().requires_grad_(True)
    weights = dict(copied.named_parameters())
    least = (2 * n for n in encoder.cell)  # the smallest crop that every norm takes
    pyramid = copied(torch.zeros(1, encoder.in_channels, *least, device=next(copied.parameters()).device))
    found: dict[str, int] = {}
    for level, features in enumerate(pyramid):
        reached = torch.autograd.grad(features.sum(), list(weights.values()), retain_graph=True, allow_unused=True)
        found = {n: level for n, g in zip(weights, reached, strict=True) if g is not None} | found
    return found


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The moving average of a weight, written so that one which stands still is its own average to the bit.

    Counts, names and masks are not averaged: the last ones hold.
    """
    return lambda average, now, seen: average + (1 - decay) * (now - average) if now.is_floating_point() else now


class Lamb(torch.optim.Optimizer):
    """Adam with decoupled decay, each tensor's step scaled to the tensor's own length.

    You et al., "Large batch optimization for deep learning: training BERT in 76 minutes" (2020),
    https://arxiv.org/abs/1904.00962, algorithm 2 with phi the identity. Deviation: tensors without decay (norms,
    biases, tokens) take Adam's step, since one that begins at 0 would never become longer.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step down the gradients; a closure computes them anew."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._descend(weight, group)
        return loss

    def _descend(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            blank = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            state |= blank | {"step": torch.zeros(())}
        state["step"] += 1
        n = float(state["step"])
        m = state["exp_avg"].lerp_(weight.grad, 1 - first) / (1 - first**n)
        v = state["exp_avg_sq"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second) / (1 - second**n)
        change = m / (v.sqrt() + group["eps"])
        trust = torch.ones(())
        if group["weight_decay"] > 0:
            change = change.add(weight, alpha=group["weight_decay"])
            own, step = weight.norm(), change.norm()
            trust = torch.where((own > 0) & (step > 0), own / step, 1.0)
        weight.sub_(change * (group["lr"] * trust))

"""Schedules: which share of its learning rate a training uses at a step."""

import math

from medssl.training.config import Plan


def share(step: int, plan: Plan, continued: bool = False) -> float:
    """The share of the learning rate at a step, 0 to 1; a `continued` infinite schedule begins on its plateau."""
    if plan.schedule == "infinite":
        return _infinite(step, plan, continued)
    if plan.schedule == "sawtooth":
        return _sawtooth(step, plan)
    if plan.schedule == "constant":
        return min(1.0, (step + 1) / (plan.warmup * plan.total + 1))
    return tooth(step, plan.warmup, plan.total)


def tooth(step: int, warmup: float, total: int) -> float:
    """Linear from 0 within the share `warmup` of `total` steps, then half a cosine down to 0."""
    warm = warmup * total
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, total - warm))))


def _sawtooth(step: int, plan: Plan) -> float:
    """The decoder alone up and down, then everything up and down."""
    if step < plan.frozen:
        return tooth(step, plan.warmup, plan.frozen)
    return tooth(step - plan.frozen, plan.warmup, plan.total - plan.frozen)


def _infinite(step: int, plan: Plan, continued: bool) -> float:
    """Up, a cosine down to the plateau, the plateau, and from there down to 0.

    Deviation: the paper's exponential annealing ends at a fixed small rate; a straight line needs no such bound.
    """
    warm, cool = plan.warmup * plan.total, plan.cooldown * plan.total
    if step >= plan.annealing:
        return plan.plateau * max(0.0, plan.total - step) / (plan.total - plan.annealing + 1)
    if continued or step >= warm + cool:
        return plan.plateau
    if step < warm:
        return (step + 1) / (warm + 1)
    return plan.plateau + (1 - plan.plateau) * 0.5 * (1 + math.cos(math.pi * (step - warm) / cool))

"""Learning-rate schedules: the factor on the learning rate at each optimizer step."""

import math

from medssl.training.config import TrainConfig


def lr_scale(step: int, config: TrainConfig, continued: bool = False) -> float:
    """Returns the factor on the learning rate at an optimizer step, from 0 to 1.

    Args:
        step: Optimizer step, counted from 0.
        config: Schedule and length of the training.
        continued: Whether the training continues from the plateau of another one; an infinite schedule then skips
            warm-up and decay.
    """
    if config.schedule == "infinite":
        return _infinite_scale(step, config, continued)
    if config.schedule == "sawtooth":
        return _sawtooth_scale(step, config)
    if config.schedule == "constant":
        return min(1.0, (step + 1) / (config.warmup_fraction * config.total_steps + 1))
    if config.schedule == "poly":
        return _poly_scale(step, config)
    return warmup_cosine(step, config.warmup_fraction, config.total_steps)


def warmup_cosine(step: int, warmup_fraction: float, total_steps: int) -> float:
    """Rises linearly during the warm-up fraction of all steps, then falls to 0 along half a cosine."""
    warmup = warmup_fraction * total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total_steps - warmup))))


def _poly_scale(step: int, config: TrainConfig) -> float:
    """Rises linearly during the warm-up, then falls with the power 0.9 of the remaining fraction of the steps."""
    warmup = config.warmup_fraction * config.total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 - (step - warmup) / (config.total_steps - warmup)) ** 0.9


def _sawtooth_scale(step: int, config: TrainConfig) -> float:
    """Runs two warm-up and cosine cycles: one for the decoder alone, one for the whole network."""
    if step < config.frozen_steps:
        return warmup_cosine(step, config.warmup_fraction, config.frozen_steps)
    return warmup_cosine(step - config.frozen_steps, config.warmup_fraction, config.total_steps - config.frozen_steps)


def _infinite_scale(step: int, config: TrainConfig, continued: bool) -> float:
    """Warms up, decays along a cosine to the plateau, stays there, and anneals to 0.

    Deviation: the paper anneals exponentially to a fixed small rate; a straight line to 0 needs no such bound.
    """
    total, plateau = config.total_steps, config.plateau_lr_scale
    warmup, decay = config.warmup_fraction * total, config.decay_fraction * total
    if step >= config.anneal_start:
        return plateau * max(0.0, total - step) / (total - config.anneal_start + 1)
    if continued or step >= warmup + decay:
        return plateau
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return plateau + (1 - plateau) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / decay))

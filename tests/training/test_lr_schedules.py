"""Each schedule has its shape at every length."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl.training.config import TrainConfig
from medssl.training.lr_schedules import lr_scale

lengths = st.tuples(st.integers(2, 40), st.integers(2, 40))
shares = st.floats(0.0, 0.3)


def values(config: TrainConfig, continued: bool = False) -> list[float]:
    return [lr_scale(step, config, continued) for step in range(config.total_steps)]


def falls(numbers: list[float]) -> bool:
    return all(a >= b - 1e-12 for a, b in pairwise(numbers))


def rises(numbers: list[float]) -> bool:
    return falls(numbers[::-1])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, st.sampled_from(["cosine", "poly", "infinite", "sawtooth", "constant"]), st.booleans())
def test_every_learning_rate_lies_between_zero_and_the_highest(length, warmup, schedule, continued):
    epochs, steps = length
    config = TrainConfig(
        epochs=epochs, steps_per_epoch=steps, warmup_fraction=warmup, schedule=schedule, freeze_fraction=0.25
    )
    assert all(0 < value <= 1 for value in values(config, continued))


@settings(max_examples=30, deadline=None)
@given(lengths, shares)
def test_the_cosine_rises_to_the_whole_and_falls_to_almost_nothing(length, warmup):
    config = TrainConfig(epochs=length[0], steps_per_epoch=length[1], warmup_fraction=warmup)
    numbers, top = values(config), math.ceil(warmup * config.total_steps)
    assert rises(numbers[:top]) and falls(numbers[top:])
    past = 1 / (config.total_steps * (1 - warmup))  # the top may lie between two steps
    assert numbers[top] >= 0.5 * (1 + math.cos(math.pi * min(1.0, past)))


def test_the_default_schedule_is_the_one_it_always_was():
    config = TrainConfig(epochs=4, steps_per_epoch=5, warmup_fraction=0.2)
    wanted = [0.2, 0.4, 0.6, 0.8] + [0.5 * (1 + math.cos(math.pi * n / 16)) for n in range(16)]
    assert values(config) == pytest.approx(wanted)


def test_the_poly_schedule_is_nnu_nets():
    config = TrainConfig(epochs=4, steps_per_epoch=5, warmup_fraction=0, schedule="poly")
    assert values(config) == pytest.approx([(1 - step / 20) ** 0.9 for step in range(20)])


@settings(max_examples=30, deadline=None)
@given(lengths, shares)
def test_the_constant_schedule_rises_once_and_stays(length, warmup):
    config = TrainConfig(epochs=length[0], steps_per_epoch=length[1], warmup_fraction=warmup, schedule="constant")
    numbers = values(config)
    assert rises(numbers) and all(n == 1 for n in numbers[math.ceil(warmup * config.total_steps) :])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, shares, shares, st.floats(0.1, 1.0))
def test_the_infinite_schedule_rises_cools_down_holds_and_anneals(length, warmup, cooldown, anneal, plateau):
    config = TrainConfig(
        epochs=length[0],
        steps_per_epoch=length[1],
        schedule="infinite",
        warmup_fraction=warmup,
        decay_fraction=cooldown,
        anneal_fraction=anneal,
        plateau_lr_scale=plateau,
    )
    numbers = values(config)
    up, down = math.ceil(warmup * config.total_steps), math.ceil((warmup + cooldown) * config.total_steps)
    assert rises(numbers[: min(up, config.anneal_start)]) and falls(numbers[up:])
    assert all(n == plateau for n in numbers[down : config.anneal_start])
    assert all(0 < n < plateau for n in numbers[config.anneal_start :])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, st.floats(0.1, 1.0))
def test_a_continued_schedule_never_warms_up_again(length, anneal, plateau):
    config = TrainConfig(
        epochs=length[0],
        steps_per_epoch=length[1],
        schedule="infinite",
        anneal_fraction=anneal,
        plateau_lr_scale=plateau,
    )
    numbers = values(config, continued=True)
    assert all(n == plateau for n in numbers[: config.anneal_start]) and falls(numbers)


def test_an_annealing_branch_may_be_all_there_is():
    config = TrainConfig(
        epochs=2, steps_per_epoch=5, schedule="infinite", warmup_fraction=0, decay_fraction=0, anneal_fraction=1
    )
    numbers = values(config, continued=True)
    assert numbers[0] < config.plateau_lr_scale and numbers == pytest.approx(
        [config.plateau_lr_scale * n / 11 for n in range(10, 0, -1)]
    )


@settings(max_examples=30, deadline=None)
@given(lengths, st.floats(0.05, 0.95), shares)
def test_the_sawtooth_has_two_teeth_each_up_and_down(length, freeze, warmup):
    config = TrainConfig(
        epochs=length[0], steps_per_epoch=length[1], schedule="sawtooth", freeze_fraction=freeze, warmup_fraction=warmup
    )
    numbers = values(config)
    for part in (numbers[: config.frozen_steps], numbers[config.frozen_steps :]):
        top = math.ceil(warmup * len(part))
        assert rises(part[:top]) and falls(part[top:])


def test_the_second_tooth_starts_low_again():
    config = TrainConfig(epochs=10, steps_per_epoch=10, schedule="sawtooth", freeze_fraction=0.3, warmup_fraction=0.2)
    numbers = values(config)
    assert numbers[29] < 0.01 and numbers[30] < 0.1 and max(numbers[:30]) == max(numbers[30:]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schedule": "infinite", "warmup_fraction": 0.5, "decay_fraction": 0.4, "anneal_fraction": 0.2},
            "to at most 1",
        ),
        ({"schedule": "sawtooth"}, "first tooth trains the decoder alone, .* it is 0.0"),
        ({"schedule": "sawtooth", "freeze_fraction": 1.0}, "it is 1.0"),
        ({"schedule": "linear"}, "'cosine', 'poly', 'infinite', 'sawtooth' or 'constant'"),
        ({"optimizer": "rprop"}, "'adamw', 'lamb' or 'sgd'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**changes)

"""Each schedule has the shape its name says, at every length."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl.training.config import Plan
from medssl.training.lr_schedules import share

lengths = st.tuples(st.integers(2, 40), st.integers(2, 40))
shares = st.floats(0.0, 0.3)


def values(plan: Plan, continued: bool = False) -> list[float]:
    return [share(step, plan, continued) for step in range(plan.total)]


def falls(numbers: list[float]) -> bool:
    return all(a >= b - 1e-12 for a, b in pairwise(numbers))


def rises(numbers: list[float]) -> bool:
    return falls(numbers[::-1])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, st.sampled_from(["cosine", "infinite", "sawtooth", "constant"]), st.booleans())
def test_every_share_lies_above_nothing_and_at_most_at_the_whole(length, warmup, schedule, continued):
    epochs, steps = length
    plan = Plan(epochs=epochs, steps=steps, warmup=warmup, schedule=schedule, freeze=0.25)
    assert all(0 < value <= 1 for value in values(plan, continued))


@settings(max_examples=30, deadline=None)
@given(lengths, shares)
def test_the_cosine_rises_to_the_whole_and_falls_to_almost_nothing(length, warmup):
    plan = Plan(epochs=length[0], steps=length[1], warmup=warmup)
    numbers, top = values(plan), math.ceil(warmup * plan.total)
    assert rises(numbers[:top]) and falls(numbers[top:])
    past = 1 / (plan.total * (1 - warmup))  # the top may lie between two steps
    assert numbers[top] >= 0.5 * (1 + math.cos(math.pi * min(1.0, past)))


def test_the_default_schedule_is_the_one_it_always_was():
    plan = Plan(epochs=4, steps=5, warmup=0.2)
    wanted = [0.2, 0.4, 0.6, 0.8] + [0.5 * (1 + math.cos(math.pi * n / 16)) for n in range(16)]
    assert values(plan) == pytest.approx(wanted)


@settings(max_examples=30, deadline=None)
@given(lengths, shares)
def test_the_constant_schedule_rises_once_and_stays(length, warmup):
    plan = Plan(epochs=length[0], steps=length[1], warmup=warmup, schedule="constant")
    numbers = values(plan)
    assert rises(numbers) and all(n == 1 for n in numbers[math.ceil(warmup * plan.total) :])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, shares, shares, st.floats(0.1, 1.0))
def test_the_infinite_schedule_rises_cools_down_holds_and_anneals(length, warmup, cooldown, anneal, plateau):
    plan = Plan(
        epochs=length[0], steps=length[1], schedule="infinite", warmup=warmup, cooldown=cooldown, anneal=anneal,
        plateau=plateau,
    )  # fmt: skip
    numbers = values(plan)
    up, down = math.ceil(warmup * plan.total), math.ceil((warmup + cooldown) * plan.total)
    assert rises(numbers[: min(up, plan.annealing)]) and falls(numbers[up:])
    assert all(n == plateau for n in numbers[down : plan.annealing])
    assert all(0 < n < plateau for n in numbers[plan.annealing :])


@settings(max_examples=30, deadline=None)
@given(lengths, shares, st.floats(0.1, 1.0))
def test_a_continued_schedule_never_warms_up_again(length, anneal, plateau):
    plan = Plan(epochs=length[0], steps=length[1], schedule="infinite", anneal=anneal, plateau=plateau)
    numbers = values(plan, continued=True)
    assert all(n == plateau for n in numbers[: plan.annealing]) and falls(numbers)


def test_an_annealing_branch_may_be_all_there_is():
    plan = Plan(epochs=2, steps=5, schedule="infinite", warmup=0, cooldown=0, anneal=1)
    numbers = values(plan, continued=True)
    assert numbers[0] < plan.plateau and numbers == pytest.approx([plan.plateau * n / 11 for n in range(10, 0, -1)])


@settings(max_examples=30, deadline=None)
@given(lengths, st.floats(0.05, 0.95), shares)
def test_the_sawtooth_has_two_teeth_each_up_and_down(length, freeze, warmup):
    plan = Plan(epochs=length[0], steps=length[1], schedule="sawtooth", freeze=freeze, warmup=warmup)
    numbers = values(plan)
    for part in (numbers[: plan.frozen], numbers[plan.frozen :]):
        top = math.ceil(warmup * len(part))
        assert rises(part[:top]) and falls(part[top:])


def test_the_second_tooth_starts_low_again():
    plan = Plan(epochs=10, steps=10, schedule="sawtooth", freeze=0.3, warmup=0.2)
    numbers = values(plan)
    assert numbers[29] < 0.01 and numbers[30] < 0.1 and max(numbers[:30]) == max(numbers[30:]) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "infinite", "warmup": 0.5, "cooldown": 0.4, "anneal": 0.2}, "together at most 1"),
        ({"schedule": "sawtooth"}, "first tooth trains the decoder alone; freeze is 0.0"),
        ({"schedule": "sawtooth", "freeze": 1.0}, "freeze is 1.0"),
        ({"schedule": "linear"}, "'cosine', 'infinite', 'sawtooth' or 'constant'"),
        ({"optimizer": "sgd"}, "'adamw' or 'lamb'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        Plan(**changes)

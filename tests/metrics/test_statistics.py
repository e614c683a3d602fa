"""Intervals that cover, and p-values that are right."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.metrics.statistics import (
    Interval,
    bootstrap_interval,
    crossed_interval,
    crossed_permutation_p,
    difference_interval,
    is_significant,
    mean_interval,
    permutation_p,
    small_sample_warning,
)


def test_a_95_percent_interval_covers_the_truth_about_that_often():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        interval = mean_interval(rng.normal(0.3, 1, (1, 40)), draws=600)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    cases = rng.normal(0, 1, (1, 30))
    equal_seeds, different_seeds = np.repeat(cases, 4, 0), cases + np.array([[-2.0], [-1], [1], [2]])
    width = [interval.high - interval.low for interval in (mean_interval(equal_seeds), mean_interval(different_seeds))]
    assert width[1] > 1.5 * width[0]


def test_pairing_by_case_is_used():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, (1, 30))
    interval = difference_interval(hard + 0.5 + rng.normal(0, 0.1, (1, 30)), hard)
    assert 0.4 < interval.low < interval.high < 0.6


def test_one_seed_gives_the_plain_bootstrap():
    values = np.random.default_rng(3).random((1, 25))
    plain = bootstrap_interval(range(25), lambda at: float(values[0, at].mean()), draws=4000)
    crossed = mean_interval(values)
    assert (plain.low, plain.high) == pytest.approx((crossed.low, crossed.high), abs=0.01)


def test_the_cases_of_one_patient_count_as_one():
    """Each case occurs twice: with patients, the interval is that of the single cases; without, it is too narrow."""
    single = np.random.default_rng(3).random((2, 30))
    twice = np.repeat(single, 2, 1)
    patients = np.repeat(np.arange(30), 2).tolist()
    width = [
        interval.high - interval.low
        for interval in (mean_interval(single), mean_interval(twice, patients), mean_interval(twice))
    ]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert width[2] < 0.85 * width[0]
    by_patient = bootstrap_interval(patients, lambda at: float(twice[0, at].mean()))
    alone = mean_interval(single[:1])
    assert (by_patient.low, by_patient.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    zeros = np.zeros_like
    assert permutation_p(twice, zeros(twice), patients) == permutation_p(single, zeros(single))


def test_a_seed_repeats_the_interval():
    values = np.random.default_rng(3).random((2, 9))
    assert mean_interval(values, seed=5) == mean_interval(values, seed=5)


def test_resamples_without_a_value_are_left_out():
    interval = bootstrap_interval(range(4), lambda at: float("nan") if 0 in at else 1.0, draws=300)
    assert (interval.low, interval.high) == (1, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7))
def test_few_cases_are_permuted_exactly(seed, cases):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.5, 1, (2, 3, cases))
    gap = (a - b).mean(0)
    all_means = [abs(np.dot(signs, gap)) for signs in product((-1, 1), repeat=cases)]
    expected = np.mean([m >= abs(gap.sum()) - 1e-12 for m in all_means])
    assert permutation_p(a, b) == pytest.approx(expected)


def test_p_is_never_zero_and_falls_with_the_effect():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 1, (1, 40))
    zeros = np.zeros((1, 40))
    p = [permutation_p(noise - noise.mean() + gap, zeros) for gap in (0.0, 0.2, 0.5, 5.0)]
    assert p == sorted(p, reverse=True)
    assert p[0] > 0.9
    assert p[-1] == pytest.approx(1 / 10_000)


def test_p_is_uniform_without_an_effect():
    rng = np.random.default_rng(5)
    p = [permutation_p(rng.normal(0, 1, (2, 12)), rng.normal(0, 1, (2, 12)), draws=400) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1


def test_a_statistic_that_is_a_mean_has_the_interval_and_the_p_of_the_mean():
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.3, 1, (3, 40)), draw.normal(0, 1, (3, 40))
    patients = [n // 2 for n in range(40)]
    crossed = crossed_interval(lambda seed, at: float((a - b)[seed, at].mean()), 3, patients, draws=4000)
    plain = difference_interval(a, b, patients)
    assert crossed.estimate == pytest.approx(plain.estimate)
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=0.05)

    def gap(swap):
        return float(np.where(swap, b - a, a - b).mean())

    assert crossed_permutation_p(gap, patients, draws=4000) == pytest.approx(permutation_p(a, b, patients), abs=0.02)
    assert crossed_permutation_p(lambda swap: gap(swap) + 100 * (not swap.any()), patients) == 1 / 500


def test_nothing_is_shown_where_there_is_no_number():
    nothing = float("nan")
    assert np.isnan(crossed_permutation_p(lambda swap: nothing, [0, 1, 2]))
    assert not is_significant(Interval(nothing, nothing, nothing), 0.001) and not is_significant(
        Interval(0.1, 0.05, 0.2), nothing
    )
    assert is_significant(Interval(0.1, 0.05, 0.2), 0.001) and is_significant(Interval(-0.1, -0.2, -0.05), 0.001)


@pytest.mark.parametrize("patients", range(1, 9))
def test_a_warning_stands_where_no_difference_can_be_shown(patients):
    score, other = np.linspace(0.9, 0.95, patients)[None], np.zeros((1, patients))
    least = permutation_p(score, other)
    assert bool(small_sample_warning(patients)) == (least > 0.05)
    assert not small_sample_warning(patients) or f"below {least:.2g}" in small_sample_warning(patients)

"""Every key permutes the numbers, all orders are about equally likely, and one number costs the same at any size."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.data.pools import keyed_permutation
from medssl.data.pools.keyed_permutation import permute_index


@given(st.integers(1, 70), st.integers(-(2**40), 2**40), st.integers(0, 50))
def test_every_number_is_taken_once(size, seed, round_):
    assert sorted(permute_index(n, size, seed, round_) for n in range(size)) == list(range(size))


@pytest.mark.parametrize("size", [2, 3, 5, 16, 33])
def test_each_place_is_equally_likely(size):
    """The squared deviations of the counts from a uniform table stay below 1.5 times their expectation."""
    counts, rounds = np.zeros((size, size)), 1000
    for round_ in range(rounds):
        counts[range(size), [permute_index(n, size, 7, round_) for n in range(size)]] += 1
    assert ((counts - rounds / size) ** 2 / (rounds / size)).sum() < 1.5 * size * (size - 1) + 5


def test_neighbours_are_torn_apart():
    """Two successive numbers are as far from each other as two random ones: a third of the size on average."""
    places = [permute_index(n, 100_000, 1) for n in range(1000)]
    assert np.mean([abs(a - b) for a, b in pairwise(places)]) == pytest.approx(100_000 / 3, rel=0.1)


def test_the_work_does_not_grow_with_the_size(monkeypatch):
    calls = []
    mix = keyed_permutation._mix
    monkeypatch.setattr(keyed_permutation, "_mix", lambda number: (calls.append(number), mix(number))[1])
    for n in range(100):
        permute_index(n, 10**9 + n, 3, 4)
    assert len(calls) < 100 * (2 + 4 * keyed_permutation.ROUNDS)


def test_a_number_beyond_the_size_is_refused():
    with pytest.raises(IndexError, match="index 40 is outside 0 to 39"):
        permute_index(40, 40)

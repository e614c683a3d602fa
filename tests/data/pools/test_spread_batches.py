"""Batches hold volumes of different groups, and every volume is visited."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.pools.spread_batches import SpreadBatches


def draw_batches(spread, count, seed=0):
    """Returns the volumes of the first batches."""
    size = spread.batch_size
    return [[spread.find_case(number, seed) for number in range(n * size, (n + 1) * size)] for n in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=8, max_size=30), st.integers(1, 8), st.integers(0, 99))
def test_no_two_volumes_of_a_batch_are_of_one_group_unless_it_is_too_large(groups, batch_size, seed):
    spread = SpreadBatches(tuple(groups), batch_size)
    distance = len(groups) // batch_size
    for batch in draw_batches(spread, 12, seed):
        for group, count in Counter(groups[case] for case in batch).items():
            assert count <= -(-groups.count(group) // distance)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 8))
def test_each_round_visits_every_volume_and_none_more_often_than_needed(groups, batch_size):
    spread = SpreadBatches(tuple(groups), batch_size)
    num_batches = -(-len(groups) // batch_size)
    batches = draw_batches(spread, 2 * num_batches)
    for part in (batches[:num_batches], batches[num_batches:]):
        visits = Counter(case for batch in part for case in batch)
        most = -(-num_batches * batch_size // len(groups))
        assert sorted(visits) == list(range(len(groups))) and set(visits.values()) <= {most - 1, most}


def test_one_group_is_a_uniform_draw():
    """Each pair of volumes meets in a batch equally often."""
    spread, pairs = SpreadBatches((0,) * 6, 2), Counter()
    for batch in draw_batches(spread, 3000):
        pairs[tuple(sorted(batch))] += 1
    assert len(pairs) == 15 and all(count == pytest.approx(200, rel=0.3) for count in pairs.values())


def test_a_batch_repeats_with_its_seed_and_differs_with_another():
    spread = SpreadBatches((0, 1, 2, 0, 1, 2), 2)
    first = draw_batches(spread, 200)
    assert first == draw_batches(spread, 200) != draw_batches(spread, 200, seed=1)
    assert len({tuple(sorted(batch)) for batch in first}) == 12, "all pairs of different groups occur"

"""Tests that a ring buffer holds the last rows and nothing else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.nn.ring_buffer import RingBuffer


def numbers(start, count):
    n = torch.arange(start, start + count)
    return {"n": n, "z": torch.stack([n, -n], 1).float()}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 10), max_size=6))
def test_it_remembers_exactly_the_last_rows_with_columns_in_step(rows, counts):
    ring = RingBuffer(rows, n=torch.tensor(-1), z=torch.zeros(2))
    start = 0
    for count in counts:
        ring.push(**numbers(start, count))
        start += count
    rows_by_name = ring.valid_rows()
    assert sorted(rows_by_name["n"].tolist()) == list(range(max(0, start - rows), start))
    assert torch.equal(rows_by_name["z"][:, 0], rows_by_name["n"].float()) and torch.equal(
        rows_by_name["z"][:, 1], -rows_by_name["n"].float()
    )


def test_rows_that_were_never_pushed_are_blank_and_the_state_can_be_resumed():
    ring = RingBuffer(4, n=torch.tensor(-1), z=torch.zeros(2))
    ring.push(**numbers(0, 3))
    assert ring.n.tolist() == [0, 1, 2, -1]
    other = RingBuffer(4, n=torch.tensor(-1), z=torch.zeros(2))
    other.load_state_dict(ring.state_dict())
    for r in (ring, other):
        r.push(**numbers(3, 2))
    assert ring.n.tolist() == other.n.tolist() == [4, 1, 2, 3]


def test_a_ring_without_rows_keeps_nothing():
    ring = RingBuffer(0, n=torch.tensor(-1))
    ring.push(n=torch.arange(3))
    assert len(ring.n) == 0 and len(ring.valid_rows()["n"]) == 0

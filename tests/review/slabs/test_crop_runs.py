"""Runs over a box draw what runs over the whole volume draw in it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medssl.review.mask_runs import apply_runs, crop_runs

SHAPE = (5, 4, 3)
RUN = st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 9))


@given(st.lists(RUN, max_size=6), st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), st.data())
def test_a_box_of_what_is_drawn_is_what_is_drawn_in_the_box(table, corner, data):
    size = tuple(data.draw(st.integers(1, n - c)) for n, c in zip(SHAPE, corner, strict=True))
    runs = np.array(table, np.int64).reshape(-1, 3)
    blank = np.zeros(SHAPE, np.int16)
    box = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
    expected = apply_runs(blank, runs)[box]
    assert (apply_runs(blank[box], crop_runs(runs, SHAPE, corner, size)) == expected).all()

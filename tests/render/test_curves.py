"""A curve keeps every finite number inside its frame, and its ticks are round."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from medssl.render.curves import HEIGHT, WIDTH, compute_ticks, draw_curve

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(numbers | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=20), st.none() | numbers)
def test_every_finite_number_is_drawn_within_the_frame(values, dashed):
    svg = draw_curve(list(enumerate(values, 1)), dashed)
    places = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg)
    assert len(places) == sum(map(math.isfinite, values))
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in places)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_few_and_lie_within(low, span):
    ticks = compute_ticks(low, low + span)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in ticks)


def test_a_higher_number_lies_higher():
    heights = [float(y) for y in re.findall(r'cy="([-\d.]+)"', draw_curve([(1, 0.2), (2, 0.9), (3, 0.5)]))]
    assert heights[1] < heights[2] < heights[0]

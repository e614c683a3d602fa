"""Strokes and signatures through outages and in two windows: none is lost, and each screen shows what is stored."""

import pytest

from medssl.review.event_store import EventStore

losses = pytest.importorskip("benchmarks.losses", reason="needs playwright (the `test` extra)")
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def bench(chromium, tmp_path_factory):
    place = tmp_path_factory.mktemp("losses")
    with losses.run_bench(losses.write_cases(place, 5), place, chromium) as bench:
        yield bench


@pytest.mark.parametrize(
    "scene", [losses.two_tabs, losses.kill_between_strokes, losses.sign_after_outage, losses.leave_after_outage]
)
def test_nothing_is_lost_and_the_screen_is_the_record(bench, scene):
    bench.begin()
    num_drawn, num_stored, is_same = scene(bench)
    assert num_stored == num_drawn and is_same
    actions = [event.action for event in EventStore(bench.server.database).read_events(bench.case)]
    assert "sign" not in actions or actions.index("stroke") < actions.index("sign")

"""A journal that goes on page after page says what it would say if it were written anew."""

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as on

from medssl.review.access.open_cases import visits
from medssl.review.event import Act, Event
from medssl.review.event_store import Store
from medssl.review.reading import fold
from medssl.review.snapshot import Page
from tests.review.test_event_store import act, tamper

AXES = '{"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 0, 0]]}'
ACTIONS = ("accept", "reject", "stroke", "measure", "open", "sign", "reopen", "undo")
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(("ana", "ben")), st.sampled_from(ACTIONS), st.integers(0, 9)),
    min_size=1, max_size=20,
)  # fmt: skip


def chain(steps) -> list[Event]:
    events: list[Event] = []
    for n, (case, reviewer, action, back) in enumerate(steps):
        own = [e.id for e in events if (e.case, e.reviewer) == (case, reviewer)]
        target = own[-1 - back % len(own)] if action == "undo" and own else None
        said = {"finding": f"f{back % 2}", "details": AXES, "mask": b"m", "dwell_ms": back, "target": target}
        act = Act(session="s", number=n, case=case, reviewer=reviewer, role="reader", action=action, **said)
        events.append(Event.after(events[-1] if events else None, act))
    return events


def turned(events: list[Event], cuts: list[int], turn=Page.turned) -> Page:
    page, ends = Page(), sorted({*(cut % len(events) for cut in cuts), len(events)})
    for start, end in zip([0, *ends], ends, strict=False):
        page = turn(page, events[start:end], lambda case: [e for e in events if e.case == case])
    return page


@given(STEPS, st.lists(st.integers(0, 99), max_size=6))
def test_every_way_of_turning_pages_ends_in_the_same(steps, cuts):
    events = chain(steps)
    assert turned(events, cuts) == Page(events[-1], fold(events), visits(events))


def test_a_journal_that_forgets_to_go_back_is_noticed():
    events = chain([("a", "ana", "accept", 0), ("a", "ana", "undo", 0)])
    careless = lambda page, new, _: Page(new[-1], fold(new, page.readings), visits(new, page.visits))  # noqa: E731
    assert turned(events, [1]).readings["a", "ana"].verdicts == {}
    assert turned(events, [1], careless) != turned(events, [1])


@contextmanager
def counted():
    """The ids of the events that are read from a database."""
    read: list[int] = []
    note = lambda event, _: read.append(event.id)  # noqa: E731
    on.listen(Event, "load", note)
    try:
        yield read
    finally:
        on.remove(Event, "load", note)


def test_an_act_reads_the_last_event_and_what_others_stored_since(place):
    mine, other = Store(place), Store(place)
    for n in range(12):
        mine.record(act(n))
    assert len(other.page().readings) == 1
    with counted() as read:
        mine.record(act(12))
        assert mine.page().reading("case-1", "ana").latest == 13
        assert sorted(read) == [11, 12, 12, 13]
        read.clear()
        other.record(act(13, session="t", reviewer="ben", case="case-2"))
        assert read == [12, 13]
    assert mine.page() == other.page() == Page(mine.events()[-1], fold(mine.events()), visits(mine.events()))


@pytest.mark.parametrize("change", ["DELETE FROM event WHERE id = 3", "UPDATE event SET finding = 'f9' WHERE id = 3"])
def test_a_last_event_that_is_not_what_it_was_makes_it_read_everything_again(place, change):
    store = Store(place)
    for n in range(3):
        store.record(act(n, finding=f"f{n}"))
    before = store.page()
    tamper(place, change)
    assert store.page().readings == fold(store.events()) != before.readings
    assert store.record(act(7)).prev_hash == store.events()[-2].hash


def test_an_undo_reaches_back_over_pages(place):
    store = Store(place)
    first = store.record(act(1))
    assert store.page().reading("case-1", "ana").verdicts
    store.record(act(2, action="undo", target=first.id))
    assert store.page().reading("case-1", "ana").verdicts == {}

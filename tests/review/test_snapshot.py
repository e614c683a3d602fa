"""A snapshot that advances step by step equals one that is replayed from the beginning."""

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as on

from medssl.review.access.open_cases import track_visits
from medssl.review.event import Act, Event
from medssl.review.event_store import EventStore
from medssl.review.reading import replay
from medssl.review.snapshot import Snapshot
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
        earlier = [e.id for e in events if (e.case, e.reviewer) == (case, reviewer)]
        target = earlier[-1 - back % len(earlier)] if action == "undo" and earlier else None
        fields = {"finding": f"f{back % 2}", "details": AXES, "mask": b"m", "dwell_ms": back, "target": target}
        act = Act(session="s", number=n, case=case, reviewer=reviewer, role="reader", action=action, **fields)
        events.append(Event.create_after(events[-1] if events else None, act))
    return events


def advance_in_parts(events: list[Event], cuts: list[int], turn=Snapshot.advance) -> Snapshot:
    snapshot, ends = Snapshot(), sorted({*(cut % len(events) for cut in cuts), len(events)})
    for start, end in zip([0, *ends], ends, strict=False):
        snapshot = turn(snapshot, events[start:end], lambda case: [e for e in events if e.case == case])
    return snapshot


@given(STEPS, st.lists(st.integers(0, 99), max_size=6))
def test_any_steps_lead_to_the_same_snapshot(steps, cuts):
    events = chain(steps)
    assert advance_in_parts(events, cuts) == Snapshot(events[-1], replay(events), track_visits(events))


def test_a_snapshot_that_ignores_undo_differs():
    events = chain([("a", "ana", "accept", 0), ("a", "ana", "undo", 0)])
    careless = lambda page, new, _: Snapshot(new[-1], replay(new, page.readings), track_visits(new, page.visits))  # noqa: E731
    assert advance_in_parts(events, [1]).readings["a", "ana"].verdicts == {}
    assert advance_in_parts(events, [1], careless) != advance_in_parts(events, [1])


@contextmanager
def count_reads():
    """The ids of the events that are read from a database."""
    read: list[int] = []
    note = lambda event, _: read.append(event.id)  # noqa: E731
    on.listen(Event, "load", note)
    try:
        yield read
    finally:
        on.remove(Event, "load", note)


def test_an_act_reads_only_the_last_event_and_newer_ones(location):
    store, other_store = EventStore(location), EventStore(location)
    for n in range(12):
        store.record(act(n))
    assert len(other_store.load_snapshot().readings) == 1
    with count_reads() as read:
        store.record(act(12))
        assert store.load_snapshot().get_reading("case-1", "ana").latest_event == 13
        assert sorted(read) == [11, 12, 12, 13]
        read.clear()
        other_store.record(act(13, session="t", reviewer="ben", case="case-2"))
        assert read == [12, 13]
    assert (
        store.load_snapshot()
        == other_store.load_snapshot()
        == Snapshot(store.read_events()[-1], replay(store.read_events()), track_visits(store.read_events()))
    )


@pytest.mark.parametrize("change", ["DELETE FROM event WHERE id = 3", "UPDATE event SET finding = 'f9' WHERE id = 3"])
def test_a_changed_last_event_makes_the_store_read_all_events_again(location, change):
    store = EventStore(location)
    for n in range(3):
        store.record(act(n, finding=f"f{n}"))
    before = store.load_snapshot()
    tamper(location, change)
    assert store.load_snapshot().readings == replay(store.read_events()) != before.readings
    assert store.record(act(7)).prev_hash == store.read_events()[-2].hash


def test_an_undo_reaches_back_beyond_the_snapshot(location):
    store = EventStore(location)
    first = store.record(act(1))
    assert store.load_snapshot().get_reading("case-1", "ana").verdicts
    store.record(act(2, action="undo", target=first.id))
    assert store.load_snapshot().get_reading("case-1", "ana").verdicts == {}

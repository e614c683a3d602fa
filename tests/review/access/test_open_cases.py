"""A lock is what the events say: who opened a case last, has not signed it, and is still there."""

from datetime import datetime, timedelta

from medssl.review.access.open_cases import locks, visits
from medssl.review.event import Act, Event

START = datetime.fromisoformat("2026-01-05T10:00:00.000+00:00")


def chain(*steps):
    """Events of (minute, reviewer, case, action)."""
    events = []
    for n, (minute, reviewer, case, action) in enumerate(steps):
        said = {"session": "s", "number": n, "case": case, "reviewer": reviewer, "role": "reader", "action": action}
        event = Event.after(events[-1] if events else None, Act(**said, finding="f"))
        event.at = (START + timedelta(minutes=minute)).isoformat(timespec="milliseconds")
        events.append(event)
    return events


def held(events, minute):
    now = START + timedelta(minutes=minute)
    return [(lock.case, lock.holder, lock.clock) for lock in locks(visits(events), now, 20)]


def test_a_case_is_held_from_its_opening_until_its_reader_is_idle():
    events = chain((0, "ana", "a", "open"), (15, "ana", "a", "accept"))
    assert held(events, 30) == [("a", "ana", "10:00 UTC")]
    assert held(events, 36) == []
    again = chain((0, "ana", "a", "open"), (50, "ana", "a", "open"), (55, "ana", "a", "open"))
    assert held(again, 56) == [("a", "ana", "10:50 UTC")]


def test_signing_or_opening_another_case_lets_go():
    assert held(chain((0, "ana", "a", "open"), (5, "ana", "a", "sign")), 6) == []
    assert held(chain((0, "ana", "a", "open"), (5, "ana", "b", "open")), 6) == [("b", "ana", "10:05 UTC")]


def test_of_two_readers_the_first_comes_first_and_neither_is_kept_out():
    events = chain((0, "ana", "a", "open"), (1, "ben", "a", "open"), (2, "ben", "a", "accept"))
    assert [holder for _, holder, _ in held(events, 3)] == ["ana", "ben"]

"""A case is open for its last reader, until the reader signs it, opens another one or is idle."""

from datetime import datetime, timedelta

from medssl.review.access.open_cases import find_open_cases, track_visits
from medssl.review.event import Act, Event

START = datetime.fromisoformat("2026-01-05T10:00:00.000+00:00")


def chain(*steps):
    """Events of (minute, reviewer, case, action)."""
    events = []
    for n, (minute, reviewer, case, action) in enumerate(steps):
        fields = {"session": "s", "number": n, "case": case, "reviewer": reviewer, "role": "reader", "action": action}
        event = Event.create_after(events[-1] if events else None, Act(**fields, finding="f"))
        event.at = (START + timedelta(minutes=minute)).isoformat(timespec="milliseconds")
        events.append(event)
    return events


def list_open(events, minute):
    now = START + timedelta(minutes=minute)
    return [(entry.case, entry.reviewer, entry.start_time) for entry in find_open_cases(track_visits(events), now, 20)]


def test_a_case_is_open_until_its_reader_is_idle():
    events = chain((0, "ana", "a", "open"), (15, "ana", "a", "accept"))
    assert list_open(events, 30) == [("a", "ana", "10:00 UTC")]
    assert list_open(events, 36) == []
    again = chain((0, "ana", "a", "open"), (50, "ana", "a", "open"), (55, "ana", "a", "open"))
    assert list_open(again, 56) == [("a", "ana", "10:50 UTC")]


def test_signing_or_opening_another_case_closes_it():
    assert list_open(chain((0, "ana", "a", "open"), (5, "ana", "a", "sign")), 6) == []
    assert list_open(chain((0, "ana", "a", "open"), (5, "ana", "b", "open")), 6) == [("b", "ana", "10:05 UTC")]


def test_two_readers_of_one_case_are_listed_in_order():
    events = chain((0, "ana", "a", "open"), (1, "ben", "a", "open"), (2, "ben", "a", "accept"))
    assert [holder for _, holder, _ in list_open(events, 3)] == ["ana", "ben"]


def test_leaving_a_case_closes_it_for_the_others():
    after_leaving = chain((0, "ana", "a", "open"), (1, "ana", "a", "close"))
    assert list_open(after_leaving, 2) == []
    after_return = chain((0, "ana", "a", "open"), (1, "ana", "a", "close"), (2, "ana", "a", "open"))
    assert list_open(after_return, 3) == [("a", "ana", "10:02 UTC")]

"""Derives from the events which reader has which case open, so that readers do not share a case by accident."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from medssl.review.event import Event
from medssl.review.reading import CASE_ACTIONS


@dataclass(frozen=True)
class OpenCase:
    """A case that a reader has open, since a time in UTC, ISO 8601."""

    case: str
    reviewer: str
    since: str

    @property
    def start_time(self) -> str:
        """The hour and minute of `since`, for example 10:05 UTC."""
        return f"{self.since[11:16]} UTC"


@dataclass(frozen=True)
class Visit:
    """The current visit of a reader.

    Args:
        case: The case that the reader has open; None after a sign-off or after leaving the case.
        opened: For each time the case was opened, the time of the reader's act before it and its own time.
        last: The time of the reader's latest act.
    """

    case: str | None = None
    opened: tuple[tuple[str, str], ...] = ()
    last: str = ""


def track_visits(events: Iterable[Event], earlier: Mapping[str, Visit] | None = None) -> dict[str, Visit]:
    """Returns the visit of every reader after the events, which follow those of the `earlier` visits."""
    visits = dict(earlier or {})
    for event in events:
        if event.action in CASE_ACTIONS:
            continue
        visit = visits.get(event.reviewer) or Visit()
        if event.action == "open":
            is_same = visit.case == event.case
            opened = (*visit.opened, (visit.last, event.at)) if is_same else ((event.at, event.at),)
            visit = Visit(event.case, opened)
        elif event.action in ("sign", "close") and event.case == visit.case:
            visit = Visit()
        visits[event.reviewer] = replace(visit, last=event.at)
    return visits


def find_open_cases(visits: Mapping[str, Visit], now: datetime, idle_minutes: float) -> list[OpenCase]:
    """Returns the open cases, earliest opening first.

    A case is open if it is the last one that the reader opened, the reader has neither signed nor left it, and acted
    within the last `idle_minutes`. A case that is opened again after an idle time counts from the later opening.
    """
    open_cases = []
    for reviewer, visit in visits.items():
        if visit.case is not None and not _is_idle(visit.last, now.isoformat(), idle_minutes):
            after_idle = (time for last, time in reversed(visit.opened) if _is_idle(last, time, idle_minutes))
            open_cases.append(OpenCase(visit.case, reviewer, next(after_idle, visit.opened[0][1])))
    return sorted(open_cases, key=lambda open_case: open_case.since)


def _is_idle(start: str, end: str, minutes: float) -> bool:
    return datetime.fromisoformat(end) - datetime.fromisoformat(start) > timedelta(minutes=minutes)

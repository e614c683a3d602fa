"""Locks: who has a case open now, so that two readers share one only on purpose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from medssl.review.event import Event


@dataclass(frozen=True)
class Lock:
    """A case, who has it open, and since when (UTC, ISO 8601)."""

    case: str
    holder: str
    since: str

    @property
    def clock(self) -> str:
        """The hour and minute, UTC."""
        return f"{self.since[11:16]} UTC"


@dataclass(frozen=True)
class Visit:
    """The case that a reader has open, if any: when they opened it, each time after an act at, and their last act."""

    case: str | None = None
    opened: tuple[tuple[str, str], ...] = ()
    last: str = ""


def visits(events: Iterable[Event], earlier: Mapping[str, Visit] | None = None) -> dict[str, Visit]:
    """Where every reader is after these events, which follow those of the `earlier` visits."""
    found = dict(earlier or {})
    for event in events:
        here = found.get(event.reviewer) or Visit()
        if event.action == "open":
            before = (*here.opened, (here.last, event.at)) if here.case == event.case else ((event.at, event.at),)
            here = Visit(event.case, before)
        elif event.action == "sign" and event.case == here.case:
            here = Visit()
        found[event.reviewer] = replace(here, last=event.at)
    return found


def locks(visits: Mapping[str, Visit], now: datetime, idle_minutes: float) -> list[Lock]:
    """Every case that a reader opened last of all, did not sign since, and still worked on within the idle time.

    Of two readers of one case, the one who opened it first comes first.
    """
    held = []
    for who, visit in visits.items():
        if visit.case is not None and not _idle(visit.last, now.isoformat(), idle_minutes):
            anew = (at for last, at in reversed(visit.opened) if _idle(last, at, idle_minutes))
            held.append(Lock(visit.case, who, next(anew, visit.opened[0][1])))
    return sorted(held, key=lambda lock: lock.since)


def _idle(last: str, at: str, minutes: float) -> bool:
    return datetime.fromisoformat(at) - datetime.fromisoformat(last) > timedelta(minutes=minutes)

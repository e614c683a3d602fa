"""Locks: who has a case open now, so that two readers share one only on purpose."""

from collections.abc import Iterable
from dataclasses import dataclass
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


def locks(events: Iterable[Event], now: datetime, idle_minutes: float) -> list[Lock]:
    """Every case that a reader opened last of all, did not sign since, and still worked on within the idle time.

    Of two readers of one case, the one who opened it first comes first.
    """
    opened: dict[str, Event] = {}
    latest: dict[str, Event] = {}
    for event in events:
        here = opened.get(event.reviewer)
        if event.action == "open":
            stays = here and here.case == event.case and not _idle(latest[event.reviewer], event.at, idle_minutes)
            opened[event.reviewer] = here if here and stays else event
        elif here and event.action == "sign" and event.case == here.case:
            del opened[event.reviewer]
        latest[event.reviewer] = event
    held = [
        Lock(e.case, who, e.at) for who, e in opened.items() if not _idle(latest[who], now.isoformat(), idle_minutes)
    ]
    return sorted(held, key=lambda lock: lock.since)


def _idle(last: Event, at: str, minutes: float) -> bool:
    return datetime.fromisoformat(at) - datetime.fromisoformat(last.at) > timedelta(minutes=minutes)

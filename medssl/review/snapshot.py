"""Keeps the readings of an event log up to date without replaying all of its events."""

from collections.abc import Callable
from dataclasses import dataclass, field

from medssl.review.access.open_cases import Visit, track_visits
from medssl.review.event import Event
from medssl.review.reading import Reading, Readings, replay


@dataclass(frozen=True)
class Snapshot:
    """The readings and visits of all reviewers after the event `last_event`; None is the empty log."""

    last_event: Event | None = None
    readings: Readings = field(default_factory=dict)
    visits: dict[str, Visit] = field(default_factory=dict)

    def get_reading(self, case: str, reviewer: str) -> Reading:
        """Returns the reading of a case by one reviewer, which may be empty."""
        return self.readings.get((case, reviewer)) or Reading(case, reviewer)

    def advance(self, events: list[Event], read_case: Callable[[str], list[Event]]) -> "Snapshot":
        """Returns the snapshot after new events.

        Args:
            events: The events after `last_event`.
            read_case: Reads all events of a case. Only a case with an undo is replayed from its beginning.
        """
        if not events:
            return self
        replayed = {event.case for event in events if event.action == "undo"}
        readings = replay([event for event in events if event.case not in replayed], self.readings)
        for case in replayed:
            readings |= replay(event for event in read_case(case) if event.id <= events[-1].id)
        return Snapshot(events[-1], readings, track_visits(events, self.visits))

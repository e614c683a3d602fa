"""Journal: what the events of a store add up to, page after page, without adding up the earlier ones again."""

from collections.abc import Callable
from dataclasses import dataclass, field

from medssl.review.access.open_cases import Visit, visits
from medssl.review.event import Event
from medssl.review.reading import Reading, Readings, fold


@dataclass(frozen=True)
class Page:
    """Every reading and visit up to the event `last`. A page never changes; what comes next is on another one."""

    last: Event | None = None
    readings: Readings = field(default_factory=dict)
    visits: dict[str, Visit] = field(default_factory=dict)

    def reading(self, case: str, reviewer: str) -> Reading:
        """One reviewer's reading of a case, maybe an empty one."""
        return self.readings.get((case, reviewer)) or Reading(case, reviewer)

    def turned(self, new: list[Event], of: Callable[[str], list[Event]]) -> "Page":
        """The page after new events; only a case in which something was undone is added up anew, of all its events."""
        if not new:
            return self
        anew = {event.case for event in new if event.action == "undo"}
        readings = fold([event for event in new if event.case not in anew], self.readings)
        for case in anew:
            readings |= fold(event for event in of(case) if event.id <= new[-1].id)
        return Page(new[-1], readings, visits(new, self.visits))

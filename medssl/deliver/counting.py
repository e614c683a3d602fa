"""Counting: the reading of a case that counts, of all that were begun."""

from collections.abc import Iterable

from medssl.errors import BadInput
from medssl.review.event import Event
from medssl.review.predictions import Index
from medssl.review.state import Reading, fold, strays


def counting(index: Index, case: str, events: Iterable[Event], unsigned: bool) -> Reading:
    """The latest signed reading; without one, if that is wanted, the latest, or the model's word alone."""
    own = [event for event in events if event.case == case]
    reading = _latest(case, list(fold(own).values()), unsigned)
    if strays((event for event in own if event.reviewer == reading.reviewer), index.weights):
        raise BadInput("its verdicts were given on another model's prediction; review this one")
    return reading


def _latest(case: str, readings: list[Reading], unsigned: bool) -> Reading:
    if signed := [reading for reading in readings if reading.signed_at]:
        return max(signed, key=lambda r: r.signed_at or "")
    if not unsigned:
        raise BadInput("not signed" if readings else "not read")
    return max(readings, key=lambda r: r.latest, default=Reading(case, ""))

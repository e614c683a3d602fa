"""What the events of a case add up to. Pure functions: the same events always give the same state."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from medssl.finding import Finding, Verdict
from medssl.review.event import VERDICTS, Act, Event
from medssl.review.recist import Axes

VERDICT, FINDING, AXES = TypeAdapter(Verdict), TypeAdapter(Finding), TypeAdapter(Axes)  # each takes a while to make
NOTED = ("open", "deliver")  # what is written down without changing a reading
SEALS = ("sign", "reopen")  # beyond which no undo goes back


class Refusal(ValueError):
    """An act that does not fit what happened before; the message is meant for the reviewer."""


@dataclass(frozen=True)
class Reading:
    """One reviewer's reading of a case: the latest verdicts, what they added, drew and measured, the sign-off."""

    case: str
    reviewer: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    added: tuple[Finding, ...] = ()
    axes: dict[str, Axes] = field(default_factory=dict)
    strokes: tuple[Event, ...] = ()
    signed_at: str | None = None
    dwell_ms: int = 0
    last: int | None = None  # what an undo would take back
    undoable: tuple[int, ...] = ()  # what it may take back: all since the last sign-off or reopening that still counts
    latest: int = 0  # the last event of all

    def missing(self, findings: Iterable[Finding]) -> list[str]:
        """The findings that still wait for a verdict."""
        return [f.id for f in findings if f.id not in self.verdicts]


Readings = dict[tuple[str, str], Reading]


def fold(events: Iterable[Event], earlier: Readings | None = None) -> Readings:
    """The reading of every (case, reviewer) that did something; `earlier`: readings that no undo here goes back to."""
    events = list(events)
    gone = undone(events)
    readings = dict(earlier or {})
    for event in events:
        key = event.case, event.reviewer
        before = readings.get(key) or Reading(*key)
        live = event.action != "undo" and event.id not in gone
        after = _step(before, event) if live else before
        still = () if event.action in SEALS else before.undoable if event.id in gone else (*before.undoable, event.id)
        readings[key] = replace(after, dwell_ms=before.dwell_ms + event.dwell_ms, latest=event.id, undoable=still)
    return readings


def undone(events: Iterable[Event]) -> set[int]:
    """The ids that an undo took back; an undo that was itself undone takes back nothing."""
    gone: set[int] = set()
    for event in sorted(events, key=lambda e: -e.id):
        if event.action == "undo" and event.id not in gone and event.target is not None:
            gone.add(event.target)
    return gone


def refusal(act: Act, mine: Reading) -> str:
    """Why an act does not fit the reviewer's reading so far; empty where it does."""
    if act.action in NOTED:
        return ""
    if act.action == "reopen":
        return "" if mine.signed_at else "this reading is not signed; there is nothing to reopen"
    if mine.signed_at:
        return f"signed on {mine.signed_at[:10]}; reopen the reading to change it"
    if act.action in (*VERDICTS, "measure") and not act.finding:
        return f"{act.action}: of which finding? none was named"
    if act.action == "sign" and (waiting := [f for f in json.loads(act.details or "[]") if f not in mine.verdicts]):
        return f"{len(waiting)} finding{'s' * (len(waiting) > 1)} without a verdict: {', '.join(waiting)}"
    if act.action == "undo" and act.target not in mine.undoable:
        return "there is nothing of yours to take back"
    return ""


def strays(events: Iterable[Event], weights: str) -> bool:
    """Whether any of these changed a reading of another model's prediction than the one with these weights."""
    return any(event.model not in ("", weights) for event in events if event.action not in NOTED)


def _step(reading: Reading, event: Event) -> Reading:
    if event.action in NOTED:
        return reading
    if event.action == "sign":
        return replace(reading, signed_at=event.at, last=None)
    if event.action == "reopen":
        return replace(reading, signed_at=None, last=None)
    if event.action == "stroke":
        return replace(reading, strokes=(*reading.strokes, event), last=event.id)
    if event.action == "measure":
        axes = AXES.validate_json(event.details)
        return replace(reading, axes=reading.axes | {event.finding: axes}, last=event.id)
    added = reading.added
    if event.action == "missed":
        added = (*added, finding_of(event))
    return replace(reading, verdicts=reading.verdicts | {event.finding: verdict(event)}, added=added, last=event.id)


def verdict(event: Event) -> Verdict:
    """The verdict that an event recorded."""
    said = event.model_dump(include={"finding", "reviewer", "note", "at", "reason", "label"})
    return VERDICT.validate_python(said | {"decision": event.action, "event": event.id})


def finding_of(event: Event) -> Finding:
    """The finding that a reader added to what the model found."""
    said = json.loads(event.details) | {"id": event.finding, "case": event.case, "source": "reader"}
    return FINDING.validate_python(said)

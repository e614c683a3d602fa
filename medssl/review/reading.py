"""Derives the state of a case from its events; the same events always give the same state."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from medssl.finding import Finding, Verdict
from medssl.review.event import DECISIONS, Act, Event
from medssl.review.recist import RecistAxes

# Built once, since building a TypeAdapter is slow.
VERDICT_ADAPTER, FINDING_ADAPTER, AXES_ADAPTER = TypeAdapter(Verdict), TypeAdapter(Finding), TypeAdapter(RecistAxes)
CASE_ACTIONS = ("predict", "adjudicate", "consensus")  # about a case, and no part of anyone's reading
NEUTRAL_ACTIONS = ("open", "close", "deliver", *CASE_ACTIONS)  # recorded, but without effect on a reading
UNDO_BARRIERS = ("sign", "reopen")  # no undo reaches back beyond these


class ActRejected(ValueError):
    """An act that does not fit the events before it; the reviewer reads the message."""


@dataclass(frozen=True)
class Reading:
    """The reading of a case by one reviewer.

    Args:
        case: The identifier of the case.
        reviewer: The login of the reviewer.
        verdicts: The latest verdict on each finding, by the identifier of the finding.
        added: The findings that the reviewer added.
        axes: The diameters that the reviewer measured, by the identifier of the finding.
        strokes: The events of the strokes that the reviewer drew.
        signed_at: The time of the sign-off in UTC, ISO 8601; None if the reading is not signed.
        meaning: The meaning of the signature, one of `MEANINGS`; empty if the reading is not signed.
        dwell_ms: The total time spent on the case, in ms.
        undoable: The events that an undo may take back: those since the last sign-off or reopening.
        latest_event: The id of the reviewer's latest event on the case.
        drawn_event: The id of the latest event that changed the strokes; 0 if there is none.
        faults: A message for each stored event that cannot be read and was left out.
        authors: In a consensus, the reader whose version of a finding counts, by finding; else empty.
    """

    case: str
    reviewer: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    added: tuple[Finding, ...] = ()
    axes: dict[str, RecistAxes] = field(default_factory=dict)
    strokes: tuple[Event, ...] = ()
    signed_at: str | None = None
    meaning: str = ""
    dwell_ms: int = 0
    undoable: tuple[Event, ...] = ()
    latest_event: int = 0
    drawn_event: int = 0
    faults: tuple[str, ...] = ()
    authors: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether the reviewer has done nothing to the case, besides opening or delivering it."""
        return not (self.verdicts or self.added or self.axes or self.strokes or self.signed_at)

    def find_author(self, finding: str) -> str:
        """Returns the reader whose version of a finding, or of a detached part of it, this is."""
        return self.authors.get(finding.partition("-part-")[0], self.authors.get("", self.reviewer))

    def list_pending(self, findings: Iterable[Finding]) -> list[str]:
        """Returns the identifiers of the findings without a verdict."""
        return [finding.id for finding in findings if finding.id not in self.verdicts]


Readings = dict[tuple[str, str], Reading]


def replay(events: Iterable[Event], earlier: Readings | None = None) -> Readings:
    """Returns the reading of every (case, reviewer) after these events.

    Args:
        events: The events in the order in which they were stored.
        earlier: The readings before these events; no undo among the events may reach back into them.
    """
    events = [event for event in events if event.action not in CASE_ACTIONS]
    undone = find_undone(events)
    readings = dict(earlier or {})
    for event in events:
        key = event.case, event.reviewer
        before = readings.get(key) or Reading(*key)
        is_effective = event.action != "undo" and event.id not in undone
        after = _apply_readable_event(before, event) if is_effective else before
        undoable = before.undoable if event.id in undone else (*before.undoable, event)
        readings[key] = replace(
            after,
            dwell_ms=before.dwell_ms + event.dwell_ms,
            latest_event=event.id,
            drawn_event=event.id if event.action in ("stroke", "undo") else before.drawn_event,
            undoable=() if event.action in UNDO_BARRIERS else undoable,
        )
    return readings


def find_undone(events: Iterable[Event]) -> set[int]:
    """Returns the ids of the events that were taken back; an undo that was itself undone takes back nothing."""
    undone: set[int] = set()
    for event in sorted(events, key=lambda e: -e.id):
        if event.action == "undo" and event.id not in undone and event.target is not None:
            undone.add(event.target)
    return undone


def find_rejection_reason(act: Act, reading: Reading) -> str:
    """Returns why an act does not fit the reviewer's reading; empty if it fits."""
    if act.action in NEUTRAL_ACTIONS:
        return ""
    if act.action == "reopen":
        return "" if reading.signed_at else "this reading is not signed; there is nothing to reopen"
    if reading.signed_at:
        return f"signed on {reading.signed_at[:10]}; reopen the reading to change it"
    if act.action in (*DECISIONS, "measure") and not act.finding:
        return f"{act.action}: no finding was named; select one first"
    if act.action == "sign":
        pending = [finding for finding in json.loads(act.details or "[]") if finding not in reading.verdicts]
        if pending:
            return f"{len(pending)} finding{'s' * (len(pending) > 1)} without a verdict: {', '.join(pending)}"
    if act.action == "undo" and act.target not in [event.id for event in reading.undoable]:
        return "you have nothing to undo"
    return ""


def has_other_model_events(events: Iterable[Event], weights_sha256: str) -> bool:
    """Whether any event changed a reading of the prediction of another model than the one with these weights."""
    return any(event.model not in ("", weights_sha256) for event in events if event.action not in NEUTRAL_ACTIONS)


def parse_verdict(event: Event) -> Verdict:
    """Returns the verdict that an event records."""
    fields = event.model_dump(include={"finding", "reviewer", "note", "at", "reason", "label"})
    return VERDICT_ADAPTER.validate_python(fields | {"decision": event.action, "event": event.id})


def parse_finding(event: Event) -> Finding:
    """Returns the finding that a reviewer added with an event."""
    fields = json.loads(event.details) | {"id": event.finding, "case": event.case, "source": "reader"}
    return FINDING_ADAPTER.validate_python(fields)


def _apply_readable_event(reading: Reading, event: Event) -> Reading:
    """Returns the reading after an event; an event that cannot be read changes nothing and is reported."""
    try:
        return _apply_event(reading, event)
    except (ValueError, TypeError, KeyError):
        fault = f"event {event.id} ({event.action}) cannot be read and was left out"
        return replace(reading, faults=(*reading.faults, fault))


def _apply_event(reading: Reading, event: Event) -> Reading:
    """Returns the reading after an event that is not an undo."""
    if event.action in NEUTRAL_ACTIONS:
        return reading
    if event.action == "sign":
        return replace(reading, signed_at=event.at, meaning=event.meaning)
    if event.action == "reopen":
        return replace(reading, signed_at=None, meaning="")
    if event.action == "stroke":
        return replace(reading, strokes=(*reading.strokes, event))
    if event.action == "measure":
        axes = AXES_ADAPTER.validate_json(event.details)
        return replace(reading, axes=reading.axes | {event.finding: axes})
    added = (*reading.added, parse_finding(event)) if event.action == "missed" else reading.added
    verdicts = reading.verdicts | {event.finding: parse_verdict(event)}
    return replace(reading, verdicts=verdicts, added=added)

"""Lets a senior who is none of the readers decide between their readings, and signs the result as the consensus.

Each decision is an event `adjudicate` with a finding and, in `details`, the reader whose version counts. The event
`consensus` signs all decisions. Both hold the signatures that they settle (the events `sign`), so that they no longer
count once a reader has reopened or signed the case again.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medssl.predictions_folder import Index
from medssl.review.access.evidence import hash_case_files
from medssl.review.access.reviewers import Reviewer
from medssl.review.consensus.differences import FREE_DRAWING, Difference, find_differences, hash_outlines
from medssl.review.event import Act, Event
from medssl.review.event_store import EventStore
from medssl.review.reading import ActRejected, Reading, replay

MEANING = "consensus"


@dataclass(frozen=True)
class Dispute:
    """A case with several signed readings.

    Args:
        case: The identifier of the case.
        readings: The signed readings, by reader, in the order of their signatures.
        signatures: The id of the event with which each reader signed.
        choices: For each adjudicator, the reader whose version of a finding counts, by finding.
        consensus: The event that signed the consensus of these readings; None if there is none.
    """

    case: str
    readings: dict[str, Reading]
    signatures: dict[str, int]
    choices: dict[str, dict[str, str]]
    consensus: Event | None = None

    @classmethod
    def from_events(cls, case: str, events: Iterable[Event]) -> "Dispute":
        """Returns the signed readings of a case and what was decided about them."""
        events = [event for event in events if event.case == case]
        signatures = _find_signatures(events)
        readings = replay(events)
        signed = {name: readings[case, name] for name in sorted(signatures, key=lambda name: signatures[name])}
        choices, consensus = dict[str, dict[str, str]](), None
        for event in events:
            if event.action in ("adjudicate", "consensus") and _read_details(event)["signatures"] == signatures:
                if event.action == "consensus":
                    consensus = event
                else:
                    choices.setdefault(event.reviewer, {})[event.finding] = _read_details(event)["reader"]
        return cls(case, signed, signatures, choices, consensus)

    def find_differences(self, index: Index) -> list[Difference]:
        """Returns the findings on which the readers differ; of a single reader, there are none."""
        readings = list(self.readings.values())
        return find_differences(index, self.case, readings) if len(readings) > 1 else []

    def compose_reading(self, choices: Mapping[str, str], adjudicator: str) -> Reading:
        """Returns the reading that takes each finding from the chosen reader.

        What is not chosen comes from the only reader that was chosen, or else from the first who signed.

        Args:
            choices: The reader whose version of a finding counts, by finding.
            adjudicator: The login of the person who decides.
        """
        chosen_readers = list(dict.fromkeys(choices.values()))
        first = chosen_readers[0] if len(chosen_readers) == 1 else next(iter(self.readings))
        names = dict.fromkeys(name for reading in self.readings.values() for name in reading.verdicts)
        authors = {name: choices.get(name, first) for name in (*names, FREE_DRAWING)}
        chosen = {name: self.readings[author] for name, author in authors.items()}
        added = (finding for reading in self.readings.values() for finding in reading.added)
        strokes = (stroke for reading in self.readings.values() for stroke in reading.strokes)
        return Reading(
            self.case,
            adjudicator,
            verdicts={name: reading.verdicts[name] for name, reading in chosen.items() if name in reading.verdicts},
            added=tuple(finding for finding in added if finding in chosen[finding.id].added),
            axes={name: reading.axes[name] for name, reading in chosen.items() if name in reading.axes},
            strokes=tuple(
                sorted(
                    (s for s in strokes if authors.get(s.finding, first) == s.reviewer), key=lambda stroke: stroke.id
                )
            ),
            authors=authors,
        )

    def find_changed_outlines(self, index: Index, choices: Mapping[str, str]) -> list[str]:
        """Returns the findings with an outline that is not the chosen one, since it overlaps one of another reader."""
        composed = self.compose_reading(choices, "")
        if not composed.strokes:
            return []
        chosen_outlines = {
            reader: hash_outlines(index, self.case, reading) for reader, reading in self.readings.items()
        }
        outlines = hash_outlines(index, self.case, composed)
        return [
            finding or "what was drawn for no finding"
            for finding, author in composed.authors.items()
            if not (finding in composed.verdicts and composed.verdicts[finding].decision == "reject")
            and outlines.get(finding, "") != chosen_outlines[author].get(finding, "")
        ]

    def get_consensus(self) -> Reading | None:
        """Returns the signed consensus as a reading of the person who signed it; None if there is none."""
        event = self.consensus
        if event is None:
            return None
        reading = self.compose_reading(_read_details(event)["choices"], event.reviewer)
        return replace(reading, signed_at=event.at, meaning=event.meaning, latest_event=event.id)


def find_obstacle(dispute: Dispute, reviewer: Reviewer) -> str:
    """Returns why a person may not adjudicate a case; empty if the person may."""
    if not reviewer.has_permission("adjudicate"):
        return f"As {reviewer.role} you may not adjudicate; a senior does."
    if reviewer.name in dispute.readings:
        return "You are one of the readers of this case. A senior who has not signed it decides."
    if dispute.consensus and dispute.consensus.reviewer != reviewer.name:
        return f"{dispute.consensus.reviewer} has signed the consensus of this case."
    return ""


def record_choice(
    store: EventStore, index: Index, reviewer: Reviewer, case: str, finding: str, reader: str, session: str, number: int
) -> Event:
    """Stores whose version of a finding counts.

    Args:
        store: The event log.
        index: The predictions.
        reviewer: The senior who decides.
        case: The identifier of the case.
        finding: The finding on which the readers differ.
        reader: The reader whose version counts.
        session: The session that sends the act.
        number: The number of the act within the session.

    Raises:
        ActRejected: If the person may not decide, or the readers do not differ on the finding.
    """
    dispute = Dispute.from_events(case, store.read_events(case))
    if reason := find_obstacle(dispute, reviewer):
        raise ActRejected(reason)
    if reader not in dispute.readings or finding not in [d.finding for d in dispute.find_differences(index)]:
        raise ActRejected("The signed readings were changed meanwhile. Look at the case again.")
    details = {"reader": reader, "signatures": dispute.signatures}
    return _store(store, index, reviewer, case, "adjudicate", details, session, number, finding)


def sign_consensus(store: EventStore, index: Index, reviewer: Reviewer, case: str, session: str, number: int) -> Event:
    """Signs the decisions of a senior on all findings on which the readers of a case differ.

    Raises:
        ActRejected: If the person may not decide, a decision is missing or the sign-in is too old for a signature.
    """
    dispute = Dispute.from_events(case, store.read_events(case))
    if reason := find_obstacle(dispute, reviewer):
        raise ActRejected(reason)
    if reviewer.signs_until is not None and time.time() > reviewer.signs_until:
        raise ActRejected("Your sign-in is too old for a signature. Sign in again, then sign.")
    choices, differences = dispute.choices.get(reviewer.name, {}), dispute.find_differences(index)
    if not differences:
        raise ActRejected("The readers do not differ; there is nothing to decide.")
    if open_findings := [d.finding or d.name for d in differences if d.finding not in choices]:
        raise ActRejected(f"Without a decision: {', '.join(open_findings)}.")
    if changed := dispute.find_changed_outlines(index, choices):
        raise ActRejected(
            f"The chosen outlines overlap: {', '.join(changed)} would not be signed as you saw it. Choose the findings "
            "that touch it from the same reader."
        )
    details = {"choices": choices, "signatures": dispute.signatures}
    return _store(store, index, reviewer, case, "consensus", details, session, number)


def list_disputes(index: Index, events: Sequence[Event]) -> list[Dispute]:
    """Returns the cases whose signed readings differ, first those without a consensus."""
    by_case: dict[str, list[Event]] = {}
    for event in events:
        by_case.setdefault(event.case, []).append(event)
    disputes = [Dispute.from_events(case, by_case.get(case, [])) for case in index.cases]
    disputes = [dispute for dispute in disputes if len(dispute.readings) > 1 and dispute.find_differences(index)]
    return sorted(disputes, key=lambda dispute: dispute.consensus is not None)


def _store(
    store: EventStore, index: Index, reviewer: Reviewer, case: str, action: str, details: Mapping[str, object],
    session: str, number: int, finding: str = "",
) -> Event:  # fmt: skip
    act = Act(
        session=session, number=number, case=case, reviewer=reviewer.name, role=reviewer.role, action=action,
        finding=finding, details=json.dumps(details, sort_keys=True), model=index.weights_sha256,
    )  # fmt: skip
    evidence = hash_case_files(index, case) | {"meaning": MEANING, "proof": reviewer.proof}
    return store.record(act, evidence=evidence)


def _find_signatures(events: Iterable[Event]) -> dict[str, int]:
    """Returns the event with which each reader signed a case, of the readers who have not reopened it."""
    signatures = dict[str, int]()
    for event in events:
        if event.action == "sign":
            signatures[event.reviewer] = event.id
        elif event.action == "reopen":
            signatures.pop(event.reviewer, None)
    return signatures


def _read_details(event: Event) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(event.details)
    return details

"""Defines the events of a review: the acts of the reviewers, linked into a hash chain."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import field_validator
from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from medssl.finding import Decision
from medssl.version import __version__

Action = Literal[
    Decision, "stroke", "measure", "undo", "open", "close", "sign", "reopen", "deliver", "predict", "adjudicate",
    "consensus",
]  # fmt: skip
Role = Literal["reader", "senior", "admin"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
DECISION_TEXT: dict[Decision, str] = {  # the words that readers see
    "accept": "accepted", "reject": "rejected", "unsure": "unsure", "edit": "corrected", "relabel": "relabelled",
    "missed": "added",
}  # fmt: skip
MEANINGS: dict[str, str] = {"reader": "reviewed", "senior": "approved"}  # the meaning of a signature by role
MAX_CLOCK_STEP_S = 1.0  # clocks of several servers may differ by this much
START_HASH = "0" * 64


class Act(SQLModel):
    """An act of a reviewer on a case.

    The pair (session, number) identifies an act, so that an act that is sent twice is stored once.

    Args:
        session: The browser session, or the command, that sent the act.
        number: The number of the act within its session.
        case: The identifier of the case.
        reviewer: The login of the reviewer.
        role: The role of the reviewer, see `Role`.
        action: What the reviewer did, see `Action`.
        finding: The identifier of the finding; empty if the act is about the whole case.
        label: The new label of a relabelled finding.
        reason: The reason for the verdict, one of `medssl.finding.REASONS` or empty.
        note: The free text of the reviewer.
        target: The id of the event that an undo takes back.
        details: Further data of the act as JSON, for example the ends of the measured axes.
        mask: The changed voxels of a stroke, packed by `mask_runs.pack_runs`.
        model: The SHA-256 of the weights that made the reviewed prediction.
        dwell_ms: The time spent on the finding before the act, in ms.
    """

    model_config = {"extra": "forbid"}

    session: str
    number: int
    case: str
    reviewer: str
    role: str
    action: str
    finding: str = ""
    label: int | None = None
    reason: str = ""
    note: str = ""
    target: int | None = None
    details: str = ""
    mask: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    model: str = ""
    dwell_ms: int = 0

    @field_validator("action")
    @classmethod
    def validate_action(cls, action: str) -> str:
        """Raises ValueError for an unknown action."""
        if action not in get_args(Action):
            raise ValueError(f"{action!r} is not an action; known: {', '.join(get_args(Action))}")
        return action

    @field_validator("role")
    @classmethod
    def validate_role(cls, role: str) -> str:
        """Raises ValueError for an unknown role."""
        if role not in get_args(Role):
            raise ValueError(f"{role!r} is not a role; known: {', '.join(get_args(Role))}")
        return role


class Event(Act, table=True):
    """A stored act, linked to the event before it by a hash.

    Args:
        id: The number of the event, from 1.
        at: The time of storage in UTC, ISO 8601.
        version: The version of medssl that stored the event.
        prev_hash: The hash of the event before it; `START_HASH` for the first event.
        hash: The hash of this event, see `compute_hash`.
        evidence: What the server knew when it stored the act, as JSON, see `access.evidence`; may be empty.
    """

    __table_args__ = (UniqueConstraint("session", "number"), Index("event_by_case", "case"))

    id: int = Field(primary_key=True)
    at: str
    version: str
    prev_hash: str
    hash: str = ""
    evidence: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """The evidence by name; empty for an act without evidence."""
        facts: dict[str, str] = json.loads(self.evidence or "{}")
        return facts

    @property
    def meaning(self) -> str:
        """The meaning of a signature; an older one without evidence has the meaning that its role has now."""
        return self.facts.get("meaning", MEANINGS.get(self.role, ""))

    @classmethod
    def create_after(cls, previous: "Event | None", act: Act, evidence: str = "") -> "Event":
        """Returns the event that stores `act` after the event `previous`."""
        fields: dict[str, Any] = act.model_dump()
        event = cls(
            **fields,
            id=previous.id + 1 if previous else 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=__version__,
            prev_hash=previous.hash if previous else START_HASH,
            evidence=evidence,
        )
        event.hash = event.compute_hash()
        return event

    def compute_hash(self) -> str:
        """Returns the SHA-256 over all fields of this event, which include the hash of the event before it.

        Empty evidence is left out, so that events from before this field was added keep their hashes.
        """
        fields: dict[str, Any] = self.model_dump(
            exclude={"hash", "mask"} | ({"evidence"} if not self.evidence else set())
        )
        fields["mask"] = hashlib.sha256(self.mask).hexdigest() if self.mask else None
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def is_record_of(self, act: Act) -> bool:
        """Whether this event stores exactly this act."""
        return all(getattr(self, name) == value for name, value in act.model_dump().items())


def find_chain_faults(events: list[Event]) -> list[str]:
    """Returns a message for each event that was changed, removed or moved; an unbroken chain has none."""
    faults, previous_hash, expected_id = [], START_HASH, 1
    for event in events:
        if event.id != expected_id:
            faults.append(f"event {expected_id}: removed; event {event.id} follows")
        elif event.prev_hash != previous_hash:
            faults.append(
                f"event {event.id}: does not link to the event before it; one of the two was moved or replaced"
            )
        if event.compute_hash() != event.hash:
            faults.append(f"event {event.id}: changed since it was stored at {event.at}")
        previous_hash, expected_id = event.hash, event.id + 1
    return faults


def find_clock_faults(events: Sequence[Event]) -> list[str]:
    """Returns a message for each event that is older than the one before it: the clock of the server ran backwards."""
    faults = []
    for before, event in pairwise(events):
        step = (datetime.fromisoformat(event.at) - datetime.fromisoformat(before.at)).total_seconds()
        if step < -MAX_CLOCK_STEP_S:
            faults.append(
                f"event {event.id}: stored at {event.at}, which is {_format_seconds(-step)} before event {before.id}; "
                "the clock of the server ran backwards"
            )
    return faults


def _format_seconds(seconds: float) -> str:
    """Returns a duration in seconds below two minutes, else in minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

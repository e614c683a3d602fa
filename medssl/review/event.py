"""Event: one thing that one person did, chained by hash to everything done before it."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import field_validator
from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from medssl import __version__
from medssl.finding import Decision

Action = Literal[Decision, "stroke", "measure", "undo", "open", "sign", "reopen", "deliver"]
Role = Literal["reader", "senior", "admin"]
VERDICTS: tuple[Decision, ...] = get_args(Decision)
START = "0" * 64


class Act(SQLModel):
    """What a person did to a case. `session` and `number` name it once, so that a repeated delivery is harmless."""

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
    def known_action(cls, action: str) -> str:
        """Refuses an action that no fold would understand."""
        if action not in (known := get_args(Action)):
            raise ValueError(f"{action!r} is no action; known: {', '.join(known)}")
        return action

    @field_validator("role")
    @classmethod
    def known_role(cls, role: str) -> str:
        """Refuses a role that has no rights."""
        if role not in get_args(Role):
            raise ValueError(f"{role!r} is no role; known: {', '.join(get_args(Role))}")
        return role


class Event(Act, table=True):
    """An act as it was stored: when (UTC), by which version, and the hash that ties it to the one before."""

    __table_args__ = (UniqueConstraint("session", "number"), Index("event_by_case", "case"))

    id: int = Field(primary_key=True)
    at: str
    version: str
    prev_hash: str
    hash: str = ""

    @classmethod
    def after(cls, last: "Event | None", act: Act) -> "Event":
        """The event that follows `last` in the chain."""
        said: dict[str, Any] = act.model_dump()
        event = cls(
            **said,
            id=last.id + 1 if last else 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=__version__,
            prev_hash=last.hash if last else START,
        )
        event.hash = event.digest()
        return event

    def digest(self) -> str:
        """The hash over everything this event says and the hash of the one before."""
        said: dict[str, Any] = self.model_dump(exclude={"hash", "mask"})
        said["mask"] = hashlib.sha256(self.mask).hexdigest() if self.mask else None
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def says(self, act: Act) -> bool:
        """Whether this event stores that very act."""
        return all(getattr(self, name) == value for name, value in act.model_dump().items())


def faults(events: list[Event]) -> list[str]:
    """Where a chain is broken: an event that was changed, removed or moved; an unbroken chain has none."""
    found, before, expected = [], START, 1
    for event in events:
        if event.id != expected:
            found.append(f"event {expected}: removed; event {event.id} follows")
        elif event.prev_hash != before:
            found.append(f"event {event.id}: does not follow the event before it; moved, or that one was replaced")
        if event.digest() != event.hash:
            found.append(f"event {event.id}: changed since it was stored at {event.at}")
        before, expected = event.hash, event.id + 1
    return found

"""Stores the acts of all reviewers in an append-only, hash-chained event log."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from sqlmodel import Session, col, select

from medssl.errors import BadInput
from medssl.predictions_folder import Index
from medssl.review.access.evidence import format_evidence, gather_evidence
from medssl.review.access.reviewers import Reviewer
from medssl.review.case_contents import CaseContents
from medssl.review.database import Database, is_url
from medssl.review.event import START_HASH, Act, Event, find_chain_faults
from medssl.review.reading import NEUTRAL_ACTIONS, ActRejected, Reading, find_rejection_reason
from medssl.review.snapshot import Snapshot


class EventStore:
    """The event log of a review, in a SQLite file or a PostgreSQL database.

    An event that `record` has returned is on disk and survives a killed process.

    Args:
        location: The path of a SQLite file or the URL of a database; the file is created if it does not exist.

    Raises:
        BadInput: If the folder of the file does not exist or the database cannot be opened.
    """

    def __init__(self, location: Path | str) -> None:
        if not is_url(location) and not Path(location).absolute().parent.is_dir():
            raise BadInput(f"{location}: its folder does not exist; create it or choose another --audit-db")
        self._database = Database(location)
        self._snapshot, self._lock = Snapshot(), Lock()
        self.name = self._database.name

    @classmethod
    def open_existing(cls, location: Path | str) -> "EventStore":
        """Opens an event log; raises BadInput if its file does not exist."""
        if not is_url(location) and not Path(location).is_file():
            raise BadInput(
                f"{location}: no verdicts here; `medssl review` records them, --audit-db names another file or database"
            )
        return cls(location)

    def record(
        self,
        act: Act,
        find_fault: Callable[[Act, Reading], str] = find_rejection_reason,
        evidence: Mapping[str, str] | None = None,
    ) -> Event:
        """Stores an act and returns its event; an act that was stored before is not stored again.

        Args:
            act: The act.
            find_fault: Returns why an act does not fit the reviewer's reading; empty if it fits.
            evidence: What `medssl.review.access.evidence` gathered; the hash of the mask of the reading is added.

        Raises:
            ActRejected: If the act does not fit the reviewer's reading, or its (session, number) belongs to another.
        """
        act = type(act).model_validate(act.model_dump())
        with self._database.write() as session:
            same_number = select(Event).where(Event.session == act.session, Event.number == act.number)
            existing = session.exec(same_number).first()
            if existing and existing.is_record_of(act):
                return existing
            if existing:
                raise ActRejected(f"number {act.number} of this session was used for something else; reload the page")
            snapshot = self._advance_snapshot(session)
            reading = snapshot.get_reading(act.case, act.reviewer)
            if reason := find_fault(act, reading):
                raise ActRejected(reason)
            event = Event.create_after(snapshot.last_event, act, format_evidence(evidence or {}, reading))
            session.add(event)
            return event

    def read_events(self, case: str | None = None) -> list[Event]:
        """Returns the events of one case, or of all cases, in the order in which they were stored."""
        with self._database.read() as session:
            return _select_events(session, case)

    def find_event_id(self, session: str, number: int) -> int | None:
        """Returns the id of the event with this session and number; None if it is not stored."""
        with self._database.read() as read_session:
            return read_session.exec(
                select(Event.id).where(Event.session == session, Event.number == number)
            ).one_or_none()

    def load_snapshot(self) -> Snapshot:
        """Returns the readings after all events, including those of other processes; reads only the new events."""
        with self._database.read() as session:
            return self._advance_snapshot(session)

    def find_faults(self, heads: Iterable[str] = ()) -> list[str]:
        """Returns a message for each fault of the chain; an intact chain has none.

        Args:
            heads: Hashes that were noted outside the database and must still be in the chain. Without them, a chain
                looks intact if its last events were deleted.
        """
        events = self.read_events()
        hashes = {START_HASH, *(event.hash for event in events)}
        faults = find_chain_faults(events)
        return faults + [
            f"no event has the hash {head}: the chain was cut or rewritten" for head in heads if head not in hashes
        ]

    def _advance_snapshot(self, session: Session) -> Snapshot:
        """Adds the new events to the snapshot; starts over if its last event is no longer in the database."""
        with self._lock:
            last = self._snapshot.last_event
            events = _select_events(session, start=last.id if last else 1)
            if last and events[:1] != [last]:
                self._snapshot, events = Snapshot(), _select_events(session)
            elif last:
                del events[0]
            self._snapshot = self._snapshot.advance(events, lambda case: _select_events(session, case))
            return self._snapshot


def resolve_database(location: str | None, predictions: Path) -> str:
    """Returns the location of the verdicts on a predictions folder: the given URL or file, or the default file."""
    if location and is_url(location):
        return location
    return str(Path(location or get_default_database(predictions)).absolute())


def get_default_database(predictions: Path) -> Path:
    """Returns the default file of the verdicts, next to the predictions folder, which is never written to."""
    folder = predictions.absolute()
    return folder.with_name(f"{folder.name}-review.sqlite")


def record_act(
    store: EventStore,
    index: Index,
    reviewer: Reviewer,
    case: str,
    action: str,
    seen: dict[str, Any] | None = None,
    **fields: Any,
) -> Event:
    """Stores an act of a reviewer on a case and returns its event.

    Args:
        store: The event log.
        index: The predictions that are reviewed.
        reviewer: The person who acts.
        case: The identifier of the case.
        action: What the person did, see `medssl.review.event.Action`.
        seen: What the person had on the screen, see `viewer_acts.describe_record`; the act is rejected if the record is
            different. None checks nothing.
        fields: The other fields of `Act`; session and number are required.

    Raises:
        ActRejected: If the role does not permit the action, the sign-in is too old for a signature, or the act does not
            fit the case or the reading.
        BadInput: If the case cannot be read.
    """
    if not reviewer.has_permission(action):
        raise ActRejected(f"As {reviewer.role} you may not {action}.")
    if action == "sign" and reviewer.signs_until is not None and time.time() > reviewer.signs_until:
        raise ActRejected("Your sign-in is too old for a signature. Sign in again, then sign.")
    fields |= {"case": case, "action": action, "model": index.weights_sha256}
    fields |= {"reviewer": reviewer.name, "role": reviewer.role}
    if action in NEUTRAL_ACTIONS:
        return store.record(Act(**fields))
    contents = CaseContents.read(index, case)
    find_fault = contents.find_fault if seen is None else partial(contents.find_fault_of_seen, seen)
    evidence = gather_evidence(index, reviewer, case, action)
    return store.record(Act(**contents.complete(fields)), find_fault, evidence)


def _select_events(session: Session, case: str | None = None, start: int = 1) -> list[Event]:
    query = select(Event).where(Event.id >= start).order_by(col(Event.id))
    return list(session.exec(query if case is None else query.where(Event.case == case)))

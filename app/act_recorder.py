"""Records the acts of one reader in the event log."""

import uuid
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.review_context import ReviewContext
from medssl.predictions_folder import Index
from medssl.review.access.reviewers import Reviewer
from medssl.review.event_store import EventStore, record_act
from medssl.review.reading import ActRejected


@dataclass(frozen=True)
class ActRecorder:
    """Records what one reader does; a rejected act changes nothing and shows its reason to the reader.

    Args:
        store: The event log.
        index: The predictions that are reviewed.
        reviewer: The reader.
    """

    store: EventStore
    index: Index
    reviewer: Reviewer

    @classmethod
    def from_context(cls, context: ReviewContext) -> "ActRecorder":
        """Returns the recorder of the reader of a context."""
        return cls(context.store, context.index, context.reviewer)

    def record(self, case: str, action: str, **fields: Any) -> None:
        """Records an act on a case under the next number of this browser session."""
        number = st.session_state["number"] = st.session_state.get("number", 0) + 1
        self.record_numbered(case, action, session=_get_session_id(), number=number, **fields)

    def record_numbered(self, case: str, action: str, *, session: str, number: int, **fields: Any) -> None:
        """Records an act that already has a session and a number; an act that arrives twice is stored once."""
        fields |= {"session": session, "number": number}
        try:
            record_act(self.store, self.index, self.reviewer, case, action, **fields)
        except ActRejected as error:
            show_toast(str(error))

    def find_viewer_event(self, case: str, number: int) -> int | None:
        """Returns the id of the event that the viewer sent under a number; None if there is none.

        The viewer numbers its events per case and keeps counting when the page is reloaded.
        """
        events = [e for e in self.store.read_events(case) if e.reviewer == self.reviewer.name]
        from_viewer = [e for e in events if e.session != _get_session_id()]
        return next((e.id for e in reversed(from_viewer) if e.number == number), None)


def show_toast(message: str) -> None:
    """Shows a message to the reader at the next run of the page."""
    st.session_state["toast"] = message


def _get_session_id() -> str:
    """Returns the identifier of this browser session, which no two open pages share."""
    return st.session_state.setdefault("session", uuid.uuid4().hex)

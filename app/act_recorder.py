"""Records the acts of one reader in the event log."""

import uuid
from dataclasses import dataclass

import streamlit as st

from app.review_context import ReviewContext
from medssl.predictions_folder import Index
from medssl.review.access.reviewers import Reviewer
from medssl.review.event_store import EventStore, record_act
from medssl.review.reading import ActRejected
from medssl.review.viewer_acts import AnyEvent, build_act_fields


@dataclass(frozen=True)
class ActRecorder:
    """Records what one reader does; a rejected act changes nothing.

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

    def record(self, case: str, action: str) -> None:
        """Records an act of the page under the next number of this browser session; a rejected act shows its reason."""
        session, number = get_session_id(), next_number()
        try:
            record_act(self.store, self.index, self.reviewer, case, action, session=session, number=number)
        except ActRejected as error:
            show_toast(str(error))

    def record_event(self, case: str, event: AnyEvent) -> None:
        """Records the act of an event of the viewer; an event that arrives twice is stored once.

        Raises:
            ActRejected: If the act does not fit the case, the reading or the reader's role; nothing was stored.
            BadInput: If the case or the event log cannot be used.
        """
        fields = build_act_fields(event, self.index.labels, self.store.find_event_id)
        record_act(self.store, self.index, self.reviewer, case, **fields)


def show_toast(message: str) -> None:
    """Shows a message to the reader at the next run of the page."""
    st.session_state["toast"] = message


def next_number() -> int:
    """Returns the next number for an act of this browser session."""
    st.session_state["number"] = st.session_state.get("number", 0) + 1
    return int(st.session_state["number"])


def get_session_id() -> str:
    """Returns the identifier of this browser session, which no two open pages share."""
    return st.session_state.setdefault("session", uuid.uuid4().hex)

"""Receives the events that the browser sends for one case, in order, and answers which of them are stored."""

from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from app.act_recorder import ActRecorder
from app.case_export import deliver_case
from app.review_context import ReviewContext
from medssl.errors import BadInput
from medssl.review.reading import ActRejected
from medssl.review.viewer_acts import AnyEvent, MissedEvent, VerdictEvent, build_added_id, format_event_id, parse_event
from medssl.review.worklist import find_next, triage


@dataclass(frozen=True)
class Answer:
    """What became of the events that were sent last.

    Args:
        acked: The identities of the events that are done.
        refused: The identity of the first event that was refused, and the reason; None if none was. The events after it
            were not looked at.
    """

    acked: tuple[str, ...] = ()
    refused: dict[str, str] | None = None


@dataclass(frozen=True)
class ViewerInbox:
    """The one path of all acts on a case: an event is done only after those before it.

    Args:
        context: The state of the review.
        recorder: Records the acts.
        number: The position of the case in the index, from 1.
    """

    context: ReviewContext
    recorder: ActRecorder
    number: int

    @property
    def answer(self) -> dict[str, Any]:
        """The answer to the events that this browser session sent last."""
        return asdict(st.session_state.get(f"answer-{self.number}", Answer()))

    def receive(self, contents: Any) -> None:
        """Handles events until one is refused; an event that was handled before is only answered again."""
        handled: set[str] = st.session_state.setdefault("handled", set())
        acked: list[str] = []
        refused = None
        for content in contents if isinstance(contents, list) else []:
            try:
                event = parse_event(content)
                if event.id not in handled:
                    self._handle(event)
            except (ActRejected, BadInput, OSError) as error:
                refused = {"id": _read_id(content), "reason": str(error)}
                break
            handled.add(event.id)
            acked.append(event.id)
        st.session_state[f"answer-{self.number}"] = Answer(tuple(acked), refused)

    def _handle(self, event: AnyEvent) -> None:
        case = self.context.index.cases[self.number - 1]
        if event.kind == "select":
            st.session_state["selected"] = event.finding
        elif event.kind == "next":
            self._open_next()
        elif event.kind == "deliver":
            deliver_case(self.context, self.recorder, self.number, event)
        else:
            self.recorder.record_event(case, event)
        if isinstance(event, VerdictEvent):
            st.session_state["selected"] = event.next or event.finding
        elif isinstance(event, MissedEvent):
            st.session_state["selected"] = build_added_id(event)

    def _open_next(self) -> None:
        next_item = find_next(triage(self.context.list_cases()), self.number, self.context.busy_cases)
        if next_item:
            st.query_params["case"] = str(next_item.number)


def _read_id(content: Any) -> str:
    """Returns the identity of an event that may be malformed."""
    fields = content if isinstance(content, dict) else {}
    return format_event_id(str(fields.get("client")), fields.get("seq", 0))

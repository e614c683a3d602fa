"""Sends the acts that wait in the browser for cases that are not open, for example after an outage."""

from typing import Any

import streamlit as st

from app.act_recorder import ActRecorder
from app.review_context import ReviewContext
from app.viewer_inbox import ViewerInbox
from medssl.viewer.component import courier


def render_courier(context: ReviewContext, recorder: ActRecorder) -> None:
    """Shows what waits for this reader, and records it; shows nothing if nothing waits."""
    prefix = context.get_viewer_key("")
    num_cases = len(context.index.cases)

    def receive(events_by_key: Any) -> None:
        answers = {}
        for key, events in (events_by_key if isinstance(events_by_key, dict) else {}).items():
            number = key.removeprefix(prefix)
            if key.startswith(prefix) and number.isdecimal() and 0 < int(number) <= num_cases:
                inbox = ViewerInbox(context, recorder, int(number))
                inbox.receive(events)
                answers[key] = inbox.answer | {"name": context.index.cases[int(number) - 1]}
        st.session_state["courier-answers"] = answers

    courier(prefix=prefix, answers=st.session_state.get("courier-answers", {}), on_events=receive)

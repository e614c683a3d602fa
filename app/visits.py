"""Records when a reader leaves a case."""

import streamlit as st

from app.act_recorder import ActRecorder
from app.review_context import ReviewContext


def leave_other_case(context: ReviewContext, recorder: ActRecorder, case: str) -> None:
    """Records that the reader left the case that this browser session showed before, unless it was signed.

    Args:
        context: The state of the review.
        recorder: Records the act.
        case: The case that is shown now; empty for a page without a case.
    """
    previous = st.session_state.get("shown_case", "")
    st.session_state["shown_case"] = case
    visit = context.snapshot.visits.get(context.reviewer.name)
    if previous and previous != case and visit and visit.case == previous:
        recorder.record(previous, "close")

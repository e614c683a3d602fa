"""Tour: one hint at a time, chosen by how far the reader is; nothing to click away before reading."""

import streamlit as st

from medssl.review.worklist import Row

STEPS = (
    "1 of 5 · Cases wait in the order of the model's doubt. Press *Read next case*.",
    "2 of 5 · The crosshair is on the first finding. Scroll through it, drag with *Window*, press **?** for all keys. "
    "Then press **y** to accept it or **x** to reject it.",
    "3 of 5 · Stored. The next finding is selected; **n** and **p** go through them, **z** takes back. "
    "Is an outline wrong? Press **e**, brush, and it is saved stroke by stroke.",
    "4 of 5 · Every finding has a verdict. Anything missed? Put the crosshair there and press **a**. Then *Sign off*.",
    "5 of 5 · Signed. *Next case* goes on; `medssl feedback` makes training data of what you signed.",
)


def hint(row: Row | None) -> None:
    """The hint for the worklist, or for a case as far as it is read."""
    if not st.session_state.get("tour_over"):
        with st.container(horizontal=True, vertical_alignment="center", key="tour"):
            st.markdown(STEPS[_step(row)])
            st.button("End the tour", type="tertiary", on_click=_end)


def _step(row: Row | None) -> int:
    if row is None:
        return 0
    if row.reading.signed_at:
        return 4
    return 1 if row.read == 0 and row.findings else 3 if row.read == len(row.findings) else 2


def _end() -> None:
    st.session_state["tour_over"] = True

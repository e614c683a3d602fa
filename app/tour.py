"""Shows a guided tour: one hint at a time, chosen by the progress of the reader."""

import streamlit as st

from medssl.review.worklist import WorklistItem

STEPS = (
    "1 of 5 · The cases are sorted by the uncertainty of the model. Press *Read next case*.",
    "2 of 5 · The crosshair is on the first finding. Scroll through the slices, drag with *Window* to change the "
    "contrast, press **?** for all keys. Then press **y** to accept the finding or **x** to reject it.",
    "3 of 5 · Your verdict is saved and the next finding is selected. **n** and **p** select the next and the "
    "previous finding, **z** undoes. To correct an outline, press **e** and use the brush; each stroke is saved.",
    "4 of 5 · Every finding has a verdict. If the model missed one, put the crosshair there and press **a**. Then "
    "press *Sign off*.",
    "5 of 5 · The case is signed. *Next case* opens the next one. `medssl feedback` turns signed cases into training "
    "data.",
)


def render_hint(item: WorklistItem | None) -> None:
    """Shows the hint for the worklist (None) or for a case, unless the reader has ended the tour."""
    if not st.session_state.get("tour_over"):
        with st.container(horizontal=True, vertical_alignment="center", key="tour"):
            st.markdown(STEPS[_find_step(item)])
            st.button("End the tour", type="tertiary", on_click=_end_tour)


def _find_step(item: WorklistItem | None) -> int:
    if item is None:
        return 0
    if item.reading.signed_at:
        return 4
    if item.num_read == 0 and item.findings:
        return 1
    return 3 if item.num_read == len(item.findings) else 2


def _end_tour() -> None:
    st.session_state["tour_over"] = True

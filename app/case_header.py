"""Shows the line above the images: the progress of the case, the selected finding and the sign-off."""

import json
from html import escape

import streamlit as st

from app import theme
from app.act_recorder import ActRecorder
from app.export_button import render_export_button
from app.review_context import ReviewContext
from medssl.finding import Finding, format_volume
from medssl.predictions_folder import Index
from medssl.review.event import DECISION_TEXT
from medssl.review.reading import NEUTRAL_ACTIONS
from medssl.review.worklist import WorklistItem, find_next, triage


def render_case_header(
    context: ReviewContext, recorder: ActRecorder, item: WorklistItem, selected: Finding | None
) -> None:
    """Shows the case, its progress and the actions on the whole case."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        text = f"{item.num_read} of {len(item.findings)} findings read" if item.findings else "no findings"
        bar = theme.build_bar(item.num_read, len(item.findings), text)
        st.html(f"<div class=case-title><b>{escape(item.case)}</b><span>{bar}</span></div>", width="stretch")
        render_export_button(context, recorder, item)
        if item.reading.signed_at:
            _render_signed(context, recorder, item)
            return
        if open_case := context.busy_cases.get(item.case):
            text = f"open by {escape(open_case.reviewer)} since {open_case.start_time}"
            st.html(f"<div class=busy>{text}</div>", width="content")
        if selected:
            with st.popover("Finding", icon=":material/straighten:"):
                _render_finding(context.index, selected, item)
        _render_sign_off(context, recorder, item)


def _render_finding(index: Index, finding: Finding, item: WorklistItem) -> None:
    """Shows the measurements of a finding."""
    verdict = item.reading.verdicts.get(finding.id)
    axes = zip(finding.centre_mm, ("LR", "PA", "IS"), strict=True)
    centre = "  ".join(f"{letters[mm > 0]} {abs(mm):.0f}" for mm, letters in axes)
    verdict_parts = (DECISION_TEXT[verdict.decision], verdict.reason, verdict.note) if verdict else ("none yet",)
    facts = {
        "Finding": finding.name,
        "Diameter": f"{finding.diameter_mm:.1f} mm",
        "Volume": format_volume(finding.volume_ml),
        "Score": _format_score(index, finding),
        "Uncertainty": "–" if finding.uncertainty is None else f"{finding.uncertainty:.2f}",
        "Centre": f"{centre} mm",
        "Verdict": " ".join(verdict_parts),
    }
    cells = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    st.html(f"<dl class=facts>{cells}</dl>")


def _format_score(index: Index, finding: Finding) -> str:
    """Returns the score and, if the model has a calibrated threshold, whether the score reaches it."""
    threshold = index.thresholds.get(finding.name)
    if threshold is None:
        return f"{finding.score:.2f}"
    relation = "reaches" if finding.score >= threshold else "is below"
    return f"{finding.score:.2f}, {relation} the threshold of {threshold:.2f}"


def _render_sign_off(context: ReviewContext, recorder: ActRecorder, item: WorklistItem) -> None:
    pending, may_sign = item.reading.list_pending(item.findings), context.reviewer.has_permission("sign")
    reason = f"{len(pending)} findings have no verdict" if pending else None if may_sign else "An admin cannot sign off"
    taken_back = ("undo", *NEUTRAL_ACTIONS)
    target = next((event.id for event in reversed(item.reading.undoable) if event.action not in taken_back), None)
    st.button(
        "Undo", icon=":material/undo:", disabled=target is None, on_click=_undo,
        args=(recorder, item, target), help="Takes back your last verdict, measurement or stroke",
    )  # fmt: skip
    st.button(
        "Sign off", icon=":material/draw:", disabled=bool(pending) or not may_sign,
        type="secondary" if pending else "primary", help=reason,
        on_click=lambda: recorder.record(item.case, "sign", details=json.dumps([f.id for f in item.findings])),
    )  # fmt: skip


def _undo(recorder: ActRecorder, item: WorklistItem, target: int) -> None:
    """Takes back the last act; the server then draws the strokes again without it."""
    recorder.record(item.case, "undo", target=target)
    st.session_state.pop("overlay_event", None)


def _render_signed(context: ReviewContext, recorder: ActRecorder, item: WorklistItem) -> None:
    """Shows the sign-off and the way to the next case."""
    signed_at = (item.reading.signed_at or "")[:16].replace("T", " ")
    meaning = f" as {item.reading.meaning}" if item.reading.meaning else ""
    st.html(f"<div class=signed-strip>Signed {escape(signed_at)} UTC{escape(meaning)}</div>", width="content")
    st.button("Reopen", icon=":material/lock_open:", on_click=lambda: recorder.record(item.case, "reopen"))
    next_item = find_next(triage(context.list_cases()), item.number, context.busy_cases)
    if not next_item:
        st.html("<small>All other cases are signed</small>", width="content")
    elif st.button("Next case", type="primary", icon=":material/arrow_forward:"):
        st.query_params["case"] = str(next_item.number)
        st.rerun()

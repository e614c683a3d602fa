"""Shows the line above the images: the progress of the case and the selected finding."""

from contextlib import suppress
from html import escape

import streamlit as st

from app import theme
from app.review_context import ReviewContext
from medssl.errors import BadInput
from medssl.finding import Finding, format_volume
from medssl.predictions_folder import Index
from medssl.review.case_contents import CaseContents
from medssl.review.event import DECISION_TEXT
from medssl.review.worklist import WorklistItem


def render_case_header(context: ReviewContext, item: WorklistItem, selected: Finding | None) -> None:
    """Shows the case, its progress and what could not be read; the viewer below holds all acts."""
    with suppress(BadInput, OSError):  # of files that cannot be read, the viewer itself tells
        for fault in CaseContents.read(context.index, item.case).list_faults(item.reading):
            text = theme.escape_markdown(f"A stored act cannot be used: {fault}.")
            st.warning(text, icon=":material/warning:")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        text = f"{item.num_read} of {len(item.findings)} findings read" if item.findings else "no findings"
        bar = theme.build_bar(item.num_read, len(item.findings), text)
        st.html(f"<div class=case-title><b>{escape(item.case)}</b><span>{bar}</span></div>", width="stretch")
        if item.reading.signed_at:
            _render_signed(item)
            return
        if open_case := context.busy_cases.get(item.case):
            text = f"open by {escape(open_case.reviewer)} since {open_case.start_time}"
            st.html(f"<div class=busy>{text}</div>", width="content")
        if selected:
            with st.popover("Finding", icon=":material/straighten:"):
                _render_finding(context.index, selected, item)


def _render_finding(index: Index, finding: Finding, item: WorklistItem) -> None:
    """Shows the measurements of a finding."""
    verdict = item.reading.verdicts.get(finding.id)
    axes = zip(finding.centre_mm, ("LR", "PA", "IS"), strict=True)
    centre = "  ".join(f"{letters[mm > 0]} {abs(mm):.0f}" for mm, letters in axes)
    verdict_parts = (DECISION_TEXT[verdict.decision], verdict.reason, verdict.note) if verdict else ("none yet",)
    facts = {
        "Finding": finding.name,
        "Diameter": f"{finding.diameter_mm:.1f} mm",
        "Axial axes": _format_axes(finding),
        "Volume": format_volume(finding.volume_ml),
        "Score": _format_score(index, finding),
        "Uncertainty": "–" if finding.uncertainty is None else f"{finding.uncertainty:.2f}",
        "Centre": f"{centre} mm",
        "Verdict": " ".join(verdict_parts),
    }
    cells = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    st.html(f"<dl class=facts>{cells}</dl>")


def _format_axes(finding: Finding) -> str:
    """Returns the long and the short axis of the mask in an axial plane."""
    if finding.long_axis_mm is None or finding.short_axis_mm is None:
        return "–"
    return f"{finding.long_axis_mm:.1f} x {finding.short_axis_mm:.1f} mm"


def _format_score(index: Index, finding: Finding) -> str:
    """Returns the score and, if the model has a calibrated threshold, whether the score reaches it."""
    threshold = index.thresholds.get(finding.name)
    if threshold is None:
        return f"{finding.score:.2f}"
    relation = "reaches" if finding.score >= threshold else "is below"
    return f"{finding.score:.2f}, {relation} the threshold of {threshold:.2f}"


def _render_signed(item: WorklistItem) -> None:
    """Shows the time of the sign-off."""
    signed_at = (item.reading.signed_at or "")[:16].replace("T", " ")
    meaning = f" as {item.reading.meaning}" if item.reading.meaning else ""
    st.html(f"<div class=signed-strip>Signed {escape(signed_at)} UTC{escape(meaning)}</div>", width="content")

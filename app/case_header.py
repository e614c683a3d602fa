"""Strip: the line above the images with the measures of a finding and the sign-off."""

import json
from html import escape

import streamlit as st

from app import delivery, theme
from app.review_context import Desk
from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.worklist import Row, following, triage


def draw(desk: Desk, row: Row, selected: Finding | None) -> None:
    """The case, how far it is read, and what can be done with it as a whole."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        said = f"{row.read} of {len(row.findings)} findings read" if row.findings else "nothing found by the model"
        bar = theme.bar(row.read, len(row.findings), said)
        st.html(f"<div class=case-title><b>{escape(row.case)}</b><span>{bar}</span></div>", width="stretch")
        delivery.button(desk, row)
        if row.reading.signed_at:
            _signed(desk, row)
            return
        if lock := desk.busy.get(row.case):
            st.html(f"<div class=busy>{escape(lock.holder)} has it open since {lock.clock}</div>", width="content")
        if selected:
            with st.popover("Finding", icon=":material/straighten:"):
                _facts(desk.index, selected, row)
        _sign(desk, row)


def _facts(index: Index, finding: Finding, row: Row) -> None:
    verdict = row.reading.verdicts.get(finding.id)
    sides = zip(finding.centre_mm, ("LR", "PA", "IS"), strict=True)
    centre = "  ".join(f"{letters[mm > 0]} {abs(mm):.0f}" for mm, letters in sides)
    facts = {
        "Finding": finding.name,
        "Diameter": f"{finding.diameter_mm:.1f} mm",
        "Volume": f"{finding.volume_ml:.2f} ml",
        "Confidence": _confidence(index, finding),
        "Uncertainty": "–" if finding.uncertainty is None else f"{finding.uncertainty:.2f}",
        "Centre": f"{centre} mm",
        "Verdict": " ".join((theme.SAID[verdict.decision], verdict.reason, verdict.note)) if verdict else "none yet",
    }
    cells = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in facts.items())
    st.html(f"<dl class=facts>{cells}</dl>")


def _confidence(index: Index, finding: Finding) -> str:
    """The score and, where the model was calibrated to tell, whether findings of such a score count."""
    least = index.thresholds.get(finding.name)
    if least is None:
        return f"{finding.score:.2f}"
    return f"{finding.score:.2f}, {'counts from' if finding.score >= least else 'does not count: below'} {least:.2f}"


def _sign(desk: Desk, row: Row) -> None:
    waiting, may = row.reading.missing(row.findings), desk.reviewer.may("sign")
    st.button(
        "Take back", icon=":material/undo:", disabled=row.reading.last is None, on_click=_take_back, args=(desk, row),
        help="Takes back your last verdict or stroke",
    )  # fmt: skip
    st.button(
        "Sign off", icon=":material/draw:", disabled=bool(waiting) or not may,
        type="secondary" if waiting else "primary",
        help=f"{len(waiting)} findings wait for a verdict" if waiting else None if may else "An admin signs nothing",
        on_click=lambda: desk.record(row, "sign", details=json.dumps([f.id for f in row.findings])),
    )  # fmt: skip


def _take_back(desk: Desk, row: Row) -> None:
    """Also lets the server draw the strokes anew, without the one that was taken back."""
    desk.record(row, "undo", target=row.reading.last)
    st.session_state.pop("drawn", None)


def _signed(desk: Desk, row: Row) -> None:
    at = (row.reading.signed_at or "")[:16].replace("T", " ")
    st.html(f"<div class=signed-strip>Signed {escape(at)} UTC</div>", width="content")
    st.button("Reopen", icon=":material/lock_open:", on_click=lambda: desk.record(row, "reopen"))
    ahead = following(triage(desk.rows()), row.number, desk.busy)
    if not ahead:
        st.html("<small>the last case: all are signed</small>", width="content")
    elif st.button("Next case", type="primary", icon=":material/arrow_forward:"):
        st.query_params["case"] = str(ahead.number)
        st.rerun()

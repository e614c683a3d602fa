"""Case: look at the images, decide on each finding, sign."""

import json
import time
from dataclasses import asdict
from html import escape
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import look
from app.state import Desk
from medssl.review import masks
from medssl.review.finding import Decision, Finding
from medssl.review.worklist import Row, following, triage
from medssl.viewer.component import Event, viewer

REASONS = ("", "vessel", "artefact", "normal anatomy", "wrong extent", "wrong label", "other")
BUTTONS: tuple[tuple[Decision, str, str], ...] = (
    ("accept", "Accept", "y"),
    ("reject", "Reject", "x"),
    ("unsure", "Unsure", "u"),
)


def page(desk: Desk, worklist: StreamlitPage) -> None:
    """One case, for one reader."""
    number = st.query_params.get("case", "")
    if not number.isdecimal() or not 0 < int(number) <= len(desk.index.cases):
        look.message("No case is open", "Choose one in the worklist.")
        st.page_link(worklist, label="To the worklist", icon=":material/arrow_back:")
        return
    row = desk.row(int(number))
    selected = _selected(row)
    left, right = st.columns([3, 1], gap="small")
    with right:
        _panel(desk, row, selected)
    with left:
        _viewer(desk, row, selected)


def _selected(row: Row) -> Finding | None:
    """The finding at hand: the one that was chosen, else the first without a verdict, else the first."""
    by_id = {finding.id: finding for finding in row.findings}
    waiting = row.reading.missing(row.findings)
    chosen = st.session_state.get("selected")
    if chosen not in by_id:
        chosen = next(iter([*waiting, *by_id]), None)
        _select(chosen)
    return by_id.get(chosen)


def _select(finding: str | None) -> None:
    st.session_state["selected"] = finding
    st.session_state["since"] = time.monotonic()


def _viewer(desk: Desk, row: Row, selected: Finding | None) -> None:
    decisions = {name: verdict.decision for name, verdict in row.reading.verdicts.items()}
    looks = {label.value: {"name": label.name, "colour": label.colour, "visible": True} for label in desk.index.labels}
    probability = desk.index.case(row.case) / "probability.nii.gz"
    viewer(
        key=f"viewer-{desk.mark}-{row.number}",
        volume=desk.url(row.number, "image"),
        overlay=desk.url(row.number, "labels", _drawn(row)),
        probability=desk.url(row.number, "probability") if probability.is_file() else None,
        labels=looks,
        unit=desk.index.units[row.case],
        findings=[asdict(finding) | {"decision": decisions.get(finding.id)} for finding in row.findings],
        selected=selected.id if selected else None,
        acked_seq=st.session_state.get(f"acked-{row.number}", 0),
        editable=not row.reading.signed_at,
        height=760,
        on_verdict=lambda event: _heard(desk, row, event),
        on_stroke=lambda event: _heard(desk, row, event),
        on_select=lambda event: _heard(desk, row, event),
    )


def _drawn(row: Row) -> int:
    """The last stroke when the page was opened: later ones the browser has drawn itself."""
    strokes = row.reading.strokes
    return st.session_state.setdefault(f"drawn-{row.number}", strokes[-1].id if strokes else 0)


def _heard(desk: Desk, row: Row, event: Event) -> None:
    """An event of the viewer: stored under its own number, so that one sent twice counts once; then acknowledged."""
    kind, finding = event["kind"], event.get("finding") or ""
    name = {"session": event["client"], "number": event["seq"], "dwell_ms": int(event.get("dwell_ms") or 0)}
    if kind == "select":
        _select(finding)
    elif kind == "verdict":
        desk.deliver(row, event["decision"], finding=finding, note=event.get("note") or "", **name)
        _advance(row, finding)
    elif kind == "missed":
        made = f"reader-{event['client'][:8]}-{event['seq']}"
        desk.deliver(row, "missed", finding=made, details=_added(desk, event), note=event.get("note") or "", **name)
        _select(made)
    elif kind == "stroke":
        desk.deliver(row, "stroke", finding=finding, mask=masks.pack(event["runs"]), **name)
    elif kind == "undo":
        desk.deliver(row, "undo", target=desk.stored(row, event["client"], event["of"]), **name)
    st.session_state[f"acked-{row.number}"] = event["seq"]


def _added(desk: Desk, event: Event) -> str:
    """What a reader marked at the crosshair: a place and a name; its extent is unknown until it is drawn."""
    place = dict.fromkeys(("centre_mm", "low_mm", "high_mm"), event["centre_mm"])
    name = next((label.name for label in desk.index.labels if label.value == event["label"]), "finding")
    sizes = {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0}
    return json.dumps(place | sizes | {"label": event["label"], "name": name})


def _panel(desk: Desk, row: Row, selected: Finding | None) -> None:
    st.html(f"<div class=case-title><b>{escape(row.case)}</b></div>")
    st.html(look.bar(row.read, len(row.findings), f"{row.read} of {len(row.findings)} findings read"))
    _findings(row, selected)
    if selected:
        _facts(selected, row)
    if row.reading.signed_at:
        _signed(desk, row)
        return
    if selected:
        _verdict(desk, row, selected)
    _sign(desk, row)


def _findings(row: Row, selected: Finding | None) -> None:
    with st.container(height=190 if len(row.findings) > 4 else "content", border=False):
        for finding in row.findings:
            verdict = row.reading.verdicts.get(finding.id)
            mark = look.MARKS[verdict.decision][0] if verdict else "·"
            said = f"{mark}  {finding.name}  {finding.diameter_mm:.0f} mm"
            kind = "primary" if finding == selected else "secondary"
            st.button(said, key=f"pick-{finding.id}", type=kind, width="stretch", on_click=_select, args=(finding.id,))
    if not row.findings:
        st.caption("The model found nothing here. Scroll through, add what it missed, then sign.")


def _facts(finding: Finding, row: Row) -> None:
    verdict = row.reading.verdicts.get(finding.id)
    sides = zip(finding.centre_mm, ("LR", "PA", "IS"), strict=True)
    centre = "  ".join(f"{letters[mm > 0]} {abs(mm):.0f}" for mm, letters in sides)
    facts = {
        "Diameter": f"{finding.diameter_mm:.1f} mm",
        "Volume": f"{finding.volume_ml:.2f} ml",
        "Confidence": f"{finding.score:.2f}",
        "Uncertainty": "–" if finding.uncertainty is None else f"{finding.uncertainty:.2f}",
        "Centre": f"{centre} mm",
        "Verdict": f"{look.MARKS[verdict.decision][1]} {verdict.note}" if verdict else "none yet",
    }
    cells = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in facts.items())
    st.html(f"<dl class=facts>{cells}</dl>")


def _verdict(desk: Desk, row: Row, selected: Finding) -> None:
    with st.container(horizontal=True, gap="small"):
        for decision, said, key in BUTTONS:
            kind = "primary" if decision == "accept" else "secondary"
            st.button(
                said, key=f"do-{decision}", type=kind, help=f"Key {key} in the images", on_click=_decide,
                args=(desk, row, selected.id, decision), width="stretch",
            )  # fmt: skip
    st.selectbox("Reason", REASONS, key="reason", format_func=lambda reason: reason or "no reason given")
    st.text_input("Note", key="note", placeholder="optional", max_chars=500)


def _decide(desk: Desk, row: Row, finding: str, decision: Decision) -> None:
    dwell_ms = round(1000 * (time.monotonic() - st.session_state.get("since", time.monotonic())))
    said: dict[str, Any] = {"reason": st.session_state.get("reason", ""), "note": st.session_state.get("note", "")}
    desk.record(row, decision, finding=finding, dwell_ms=dwell_ms, **said)
    st.session_state["reason"] = st.session_state["note"] = ""
    _advance(row, finding)


def _advance(row: Row, finding: str) -> None:
    """On to the next finding that still waits, in the order of the list."""
    waiting = [name for name in row.reading.missing(row.findings) if name != finding]
    order = [f.id for f in row.findings]
    later = [name for name in waiting if finding in order and order.index(name) > order.index(finding)]
    _select(next(iter([*later, *waiting]), finding))


def _sign(desk: Desk, row: Row) -> None:
    waiting = row.reading.missing(row.findings)
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Undo", icon=":material/undo:", disabled=row.reading.last is None,
            on_click=lambda: desk.record(row, "undo", target=row.reading.last),
        )  # fmt: skip
        st.button(
            "Sign off", icon=":material/draw:", disabled=bool(waiting), width="stretch",
            type="secondary" if waiting else "primary", help=f"{len(waiting)} findings wait" if waiting else None,
            on_click=lambda: desk.record(row, "sign", details=json.dumps([f.id for f in row.findings])),
        )  # fmt: skip


def _signed(desk: Desk, row: Row) -> None:
    st.html(f"<div class=signed-strip>Signed {escape((row.reading.signed_at or '')[:16].replace('T', ' '))} UTC</div>")
    ahead = following(triage(desk.rows()), row.number)
    if ahead:
        if st.button("Next case", type="primary", icon=":material/arrow_forward:", width="stretch"):
            st.query_params["case"] = str(ahead.number)
            st.session_state.pop("selected", None)
            st.rerun()
    else:
        st.caption("That was the last case.")
    st.button("Reopen", icon=":material/lock_open:", on_click=lambda: desk.record(row, "reopen"))

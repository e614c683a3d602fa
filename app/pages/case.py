"""Case: look at the images, decide on each finding, sign."""

import json
from dataclasses import asdict
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import case_header, comparison, theme, tour
from app.review_context import Desk
from medssl.finding import REASONS, Finding
from medssl.review import mask_runs as masks
from medssl.review.access.signed_links import Kind
from medssl.review.reading import Reading
from medssl.review.worklist import Row
from medssl.viewer.component import Event, viewer

HEIGHT, TOUR_HEIGHT = 740, 52


def page(desk: Desk, worklist: StreamlitPage) -> None:
    """One case, for one reader."""
    number = st.query_params.get("case", "")
    if not number.isdecimal() or not 0 < int(number) <= len(desk.index.cases):
        below = theme.message("No case is open", "Choose one in the worklist.")
        below.page_link(worklist, label="To the worklist", icon=":material/arrow_back:")
        return
    row = desk.row(int(number))
    desk.open(row)
    selected = _selected(row)
    if desk.access.tour:
        tour.hint(row)
    case_header.draw(desk, row, selected)
    _viewer(desk, row, selected)


def _selected(row: Row) -> Finding | None:
    """The finding at hand: the one that was chosen, else the first without a verdict, else the first."""
    by_id = {finding.id: finding for finding in row.findings}
    waiting = row.reading.missing(row.findings)
    chosen = st.session_state.get("selected")
    if chosen not in by_id:
        chosen = next(iter([*waiting, *by_id]), None)
        st.session_state["selected"] = chosen
    return by_id.get(chosen)


def _viewer(desk: Desk, row: Row, selected: Finding | None) -> None:
    looks = {label.value: {"name": label.name, "colour": label.colour, "visible": True} for label in desk.index.labels}
    told: tuple[Kind, ...] = ("probability", "uncertainty")
    maps = {kind: desk.url(row.number, kind) if desk.has(row, kind) else None for kind in told}
    viewer(
        key=f"viewer-{desk.mark}-{row.number}",
        volume=desk.url(row.number, "image"),
        overlay=desk.url(row.number, "labels", _drawn(row)),
        probability=maps["probability"],
        uncertainty=maps["uncertainty"],
        doubt=desk.index.uncertainty,
        labels=looks,
        unit=desk.index.units[row.case],
        findings=[asdict(finding) | _said(row.reading, finding) for finding in row.findings],
        selected=selected.id if selected else None,
        acked_seq=st.session_state.get(f"acked-{row.number}", 0),
        besides=comparison.entries(desk, row),
        name=comparison.title(desk.index, row.case),
        editable=not row.reading.signed_at,
        reasons=REASONS,
        height=HEIGHT - TOUR_HEIGHT * desk.access.tour,
        on_verdict=lambda event: _heard(desk, row, event),
        on_stroke=lambda event: _heard(desk, row, event),
        on_select=lambda event: _heard(desk, row, event),
    )


def _said(reading: Reading, finding: Finding) -> dict[str, Any]:
    """What this reader decided on a finding, which label they gave it, and what they measured of it."""
    verdict, axes = reading.verdicts.get(finding.id), reading.axes.get(finding.id)
    said = {"decision": verdict.decision, "relabelled": verdict.label} if verdict else {"decision": None}
    return said | {"axes": asdict(axes) if axes else None}


def _drawn(row: Row) -> int:
    """The event up to which the server draws a reader's strokes: the browser itself draws those that come later."""
    opened, event = st.session_state.get("drawn", (0, 0))
    if opened != row.number:
        event = row.reading.latest if row.reading.strokes else 0
        st.session_state["drawn"] = row.number, event
    return event


def _heard(desk: Desk, row: Row, event: Event) -> None:
    """An event of the viewer: stored under its own number, so that one sent twice counts once; then acknowledged."""
    kind, finding = event["kind"], event.get("finding") or ""
    name = {"session": event["client"], "number": event["seq"], "dwell_ms": int(event.get("dwell_ms") or 0)}
    why = {"reason": event.get("reason") or "", "note": event.get("note") or ""}
    if kind == "select":
        st.session_state["selected"] = finding
    elif kind == "verdict":
        desk.deliver(row, event["decision"], finding=finding, label=event.get("label"), **name, **why)
        st.session_state["selected"] = event.get("next") or finding
    elif kind == "missed":
        made = f"reader-{event['client'][:8]}-{event['seq']}"
        desk.deliver(row, "missed", finding=made, details=_added(desk, event), **name, **why)
        st.session_state["selected"] = made
    elif kind == "measure":
        axes = {part: event[part] for part in ("plane", "long", "short")}
        desk.deliver(row, "measure", finding=finding, details=json.dumps(axes), **name)
    elif kind == "stroke":
        desk.deliver(row, "stroke", finding=finding, mask=masks.pack(event["runs"]), **name)
    elif kind == "undo":
        desk.deliver(row, "undo", target=desk.stored(row, event["of"]), **name)
    st.session_state[f"acked-{row.number}"] = event["seq"]


def _added(desk: Desk, event: Event) -> str:
    """What a reader marked at the crosshair: a place and a name; its extent is unknown until it is drawn."""
    place = dict.fromkeys(("centre_mm", "low_mm", "high_mm"), event["centre_mm"])
    name = next((label.name for label in desk.index.labels if label.value == event["label"]), "finding")
    sizes = {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0}
    return json.dumps(place | sizes | {"label": event["label"], "name": name})

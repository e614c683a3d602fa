"""Shows one case: its images in the viewer, the verdicts on its findings and the sign-off."""

import json
from dataclasses import asdict
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import case_header, comparison, theme, tour, visits
from app.act_recorder import ActRecorder
from app.image_urls import ImageUrls
from app.review_context import ReviewContext
from medssl.finding import REASONS, Finding
from medssl.predictions_folder import Index
from medssl.review.access.signed_links import ImageKind
from medssl.review.corrected_labels import find_top_label
from medssl.review.mask_runs import pack_runs
from medssl.review.reading import Reading
from medssl.review.worklist import WorklistItem
from medssl.viewer.component import Event, viewer

VIEWER_HEIGHT, TOUR_HEIGHT = 740, 52  # in pixels
MAPS: tuple[ImageKind, ...] = ("probability", "uncertainty")


def render_page(context: ReviewContext, recorder: ActRecorder, urls: ImageUrls, worklist_page: StreamlitPage) -> None:
    """Shows the case of the query parameter `case` to one reader."""
    number = st.query_params.get("case", "")
    if not number.isdecimal() or not 0 < int(number) <= len(context.index.cases):
        container = theme.render_message("No case is open", "Choose a case in the worklist.")
        container.page_link(worklist_page, label="Go to the worklist", icon=":material/arrow_back:")
        return
    item = context.load_case(int(number))
    visits.leave_other_case(context, recorder, item.case)
    if not item.reading.signed_at and not context.has_open(item.case):
        recorder.record(item.case, "open")
    selected = _select_finding(item)
    if context.config.guided_tour:
        tour.render_hint(item)
    case_header.render_case_header(context, recorder, item, selected)
    _render_viewer(context, recorder, urls, item, selected)


def handle_event(index: Index, recorder: ActRecorder, item: WorklistItem, event: Event) -> None:
    """Records an event of the viewer under the number that the viewer gave it, then acknowledges the event."""
    kind, finding = event["kind"], event.get("finding") or ""
    ids: dict[str, Any] = {
        "session": event["client"],
        "number": event["seq"],
        "dwell_ms": int(event.get("dwell_ms") or 0),
    }
    remarks: dict[str, Any] = {"reason": event.get("reason") or "", "note": event.get("note") or ""}
    if kind == "select":
        st.session_state["selected"] = finding
    elif kind == "verdict":
        label = event.get("label")
        recorder.record_numbered(item.case, event["decision"], finding=finding, label=label, **ids, **remarks)
        st.session_state["selected"] = event.get("next") or finding
    elif kind == "missed":
        finding = f"reader-{event['client'][:8]}-{event['seq']}"
        details = _describe_added_finding(index, event)
        recorder.record_numbered(item.case, "missed", finding=finding, details=details, **ids, **remarks)
        st.session_state["selected"] = finding
    elif kind == "measure":
        axes = {name: event[name] for name in ("plane", "long", "short")}
        recorder.record_numbered(item.case, "measure", finding=finding, details=json.dumps(axes), **ids)
    elif kind == "stroke":
        recorder.record_numbered(item.case, "stroke", finding=finding, mask=pack_runs(event["runs"]), **ids)
    elif kind == "undo":
        target = recorder.find_viewer_event(item.case, event["of"])
        recorder.record_numbered(item.case, "undo", target=target, **ids)
    st.session_state[f"acked-{item.number}"] = event["seq"]


def _select_finding(item: WorklistItem) -> Finding | None:
    """Returns the selected finding: the reader's choice, else the first without a verdict, else the first."""
    by_id = {finding.id: finding for finding in item.findings}
    selected = st.session_state.get("selected")
    if selected not in by_id:
        selected = next(iter([*item.reading.list_pending(item.findings), *by_id]), None)
        st.session_state["selected"] = selected
    return by_id.get(selected)


def _render_viewer(
    context: ReviewContext, recorder: ActRecorder, urls: ImageUrls, item: WorklistItem, selected: Finding | None
) -> None:
    index = context.index
    maps = {kind: urls.get_url(item.number, kind) if urls.has_map(item.case, kind) else None for kind in MAPS}

    def on_event(event: Event) -> None:
        handle_event(index, recorder, item, event)

    viewer(
        key=f"viewer-{context.browser_key}-{item.number}",
        volume=urls.get_url(item.number, "image"),
        overlay=urls.get_url(item.number, "findings", _find_overlay_event(item)),
        probability=maps["probability"],
        uncertainty=maps["uncertainty"],
        uncertainty_source=index.uncertainty,
        labels={label.value: {"name": label.name, "colour": label.colour, "visible": True} for label in index.labels},
        unit=index.units[item.case],
        findings=_describe_findings(context, item),
        selected=selected.id if selected else None,
        acked_seq=st.session_state.get(f"acked-{item.number}", 0),
        comparisons=comparison.build_comparisons(context, urls, item),
        name=comparison.format_title(index, item.case),
        editable=not item.reading.signed_at,
        reasons=REASONS,
        height=VIEWER_HEIGHT - TOUR_HEIGHT * context.config.guided_tour,
        on_verdict=on_event,
        on_stroke=on_event,
        on_select=on_event,
    )


def _describe_findings(context: ReviewContext, item: WorklistItem) -> list[dict[str, Any]]:
    """Returns the findings as the viewer expects them, each with its number in the overlay and its detached parts."""
    findings = context.measure_findings(item.case)
    parts = [asdict(part.finding) | {"part_of": part.part_of} for part in findings if not part.is_listed]
    return [
        asdict(finding)
        | {"number": number, "parts": [part for part in parts if part["part_of"] == finding.id]}
        | _describe_verdict(item.reading, finding)
        for number, finding in enumerate(item.findings, find_top_label(context.index) + 1)
    ]


def _describe_verdict(reading: Reading, finding: Finding) -> dict[str, Any]:
    """Returns the reader's decision on a finding, its new label and the measured axes, as the viewer expects them."""
    verdict, axes = reading.verdicts.get(finding.id), reading.axes.get(finding.id)
    decision = {"decision": verdict.decision, "relabelled": verdict.label} if verdict else {"decision": None}
    return decision | {"axes": asdict(axes) if axes else None}


def _find_overlay_event(item: WorklistItem) -> int:
    """Returns the event up to which the server draws the reader's strokes; the browser draws the later ones itself."""
    number, event = st.session_state.get("overlay_event", (0, 0))
    if number != item.number:
        event = item.reading.latest_event if item.reading.strokes else 0
        st.session_state["overlay_event"] = item.number, event
    return event


def _describe_added_finding(index: Index, event: Event) -> str:
    """Returns a finding that the reader marked at the crosshair as JSON; its size is unknown until it is drawn."""
    position = dict.fromkeys(("centre_mm", "low_mm", "high_mm"), event["centre_mm"])
    name = next((label.name for label in index.labels if label.value == event["label"]), "finding")
    sizes = {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0}
    return json.dumps(position | sizes | {"label": event["label"], "name": name})

"""Shows one case: its images in the viewer, the verdicts on its findings and the sign-off."""

from dataclasses import asdict
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import case_header, comparison, theme, tour, visits
from app.act_recorder import ActRecorder, get_session_id
from app.case_export import describe_formats, find_download_url, find_exportable
from app.image_urls import ImageUrls
from app.review_context import ReviewContext
from app.viewer_inbox import ViewerInbox
from medssl.finding import REASONS, Finding
from medssl.predictions_folder import ChannelFacts, Index, LabelDef, read_channel_facts
from medssl.render.windows import find_structure_preset
from medssl.review.access.signed_links import ImageKind
from medssl.review.corrected_labels import find_top_label
from medssl.review.event import DECISIONS
from medssl.review.reading import Reading
from medssl.review.viewer_acts import format_event_id, list_drawn
from medssl.review.worklist import WorklistItem, find_next
from medssl.viewer.component import viewer

FOLLOW_S = 10  # seconds between two looks at what the reader did elsewhere
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
    case_header.render_case_header(context, item, selected)
    _render_viewer(context, recorder, urls, item, selected)
    st.fragment(_follow_record, run_every=FOLLOW_S)(context, item)


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
    index, reading = context.index, item.reading
    inbox = ViewerInbox(context, recorder, item.number)
    undoable = [e for e in reading.undoable if e.action in (*DECISIONS, "stroke", "measure")]
    channel = next(iter(read_channel_facts(index.case_folder(item.case))), ChannelFacts())
    maps = {kind: urls.get_url(item.number, kind) if urls.has_map(item.case, kind) else None for kind in MAPS}

    viewer(
        key=context.get_viewer_key(item.number),
        volume=urls.get_url(item.number, "image"),
        overlay=urls.get_url(item.number, "findings", reading.drawn_event),
        probability=maps["probability"],
        uncertainty=maps["uncertainty"],
        uncertainty_source=index.uncertainty,
        labels={label.value: _describe_label(label) for label in index.labels},
        unit=index.units[item.case],
        findings=_describe_findings(context, item),
        selected=selected.id if selected else None,
        answer=inbox.answer,
        session=get_session_id(),
        assist=None if reading.signed_at else urls.get_assist_url(item.number),
        reader=context.reader_key,
        drawn=list_drawn(reading),
        undoable=[format_event_id(event.session, event.number) for event in undoable],
        case=_describe_case(context, item),
        alive_s=15 * context.config.idle_minutes,
        comparisons=[
            *comparison.build_sequences(context, urls, item),
            *comparison.build_comparisons(context, urls, item),
        ],
        name=comparison.format_title(index, item.case),
        editable=not reading.signed_at,
        reasons=REASONS,
        facts=_list_facts(index, item.case, channel),
        instances={"axis": channel.slice_axis, "numbers": channel.instances},
        on_events=inbox.receive,
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


def _describe_label(label: LabelDef) -> dict[str, Any]:
    """Returns a label as the viewer expects it."""
    return {"name": label.name, "colour": label.colour, "visible": True, "window": find_structure_preset(label.name)}


def _list_facts(index: Index, case: str, channel: ChannelFacts) -> list[str]:
    """Returns what is known about the series of a case, a line each."""
    study = index.find_study(case)
    date = comparison.format_date(study.date) or ("" if study.day is None else f"day {study.day}")
    modality = channel.modality or ("CT" if index.units[case] == "HU" else "")
    return [fact for fact in (" ".join(filter(None, (modality, channel.name))), *channel.acquisition, date) if fact]


def _describe_verdict(reading: Reading, finding: Finding) -> dict[str, Any]:
    """Returns the reader's decision on a finding, its new label and the measured axes, as the viewer expects them."""
    verdict, axes = reading.verdicts.get(finding.id), reading.axes.get(finding.id)
    decision = {"decision": verdict.decision, "relabelled": verdict.label} if verdict else {"decision": None}
    return decision | {"axes": asdict(axes) if axes else None}


def _describe_case(context: ReviewContext, item: WorklistItem) -> dict[str, Any]:
    """Returns the state of the whole case and what this reader may do with it, as the viewer expects them."""
    sign_off = find_exportable(context, item.number)
    is_signed = item.reading.signed_at is not None
    return {
        "signed_at": item.reading.signed_at,
        "sign_obstacle": "" if context.reviewer.has_permission("sign") else "An admin cannot sign off",
        "has_next": is_signed and find_next(context.list_cases(), item.number) is not None,
        "may_deliver": sign_off is not None,
        "export_formats": describe_formats(context.config),
        "download_url": find_download_url(item.number, sign_off),
    }


def _follow_record(context: ReviewContext, item: WorklistItem) -> None:
    """Runs the page again when the reader's own reading has changed elsewhere, for example in another browser."""
    current = context.store.load_snapshot().get_reading(item.case, context.reviewer.name)
    if _summarize(current) != _summarize(item.reading):
        st.rerun(scope="app")


def _summarize(reading: Reading) -> tuple[Any, ...]:
    verdicts = tuple(verdict.event for verdict in reading.verdicts.values())
    return reading.drawn_event, reading.signed_at, verdicts, tuple(reading.axes.items())

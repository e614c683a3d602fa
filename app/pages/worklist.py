"""Shows the worklist: the cases in the order of reading, and the progress of the review."""

from collections import Counter
from html import escape
from typing import get_args

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import theme, tour, visits
from app.act_recorder import ActRecorder
from app.comparison import format_date
from app.courier_bar import render_courier
from app.review_context import ReviewContext
from medssl.finding import format_volume
from medssl.predictions_folder import Index
from medssl.review.access.open_cases import OpenCase
from medssl.review.worklist import Order, WorklistItem, find_next, triage

CASES_PER_PAGE = 20
COLUMN_WIDTHS = (12, 1)
COLUMNS = ("", "Case", "Findings", "Uncertainty", "Largest", "Read")
STATES = {"to read": ("open", "new"), "all": ("open", "new", "signed"), "signed": ("signed",)}
ALL_SIGNED = "All cases are signed", "Thank you. The command medssl feedback turns your verdicts into training data."
NO_MATCH = "No case matches", "Change the filters above."
NO_CASES = "Nothing to read", "This predictions folder has no cases. Predict some scans, then reload this page."


def render_page(context: ReviewContext, recorder: ActRecorder, case_page: StreamlitPage) -> None:
    """Shows the worklist of one reader."""
    visits.leave_other_case(context, recorder, "")
    items = context.list_cases()
    _render_missing_cases(context.index, items)
    if not items:
        theme.render_message(*NO_CASES)
        return
    if context.config.guided_tour:
        tour.render_hint(None)
    render_courier(context, recorder)
    _render_progress(context, items, case_page)
    selected = _filter_cases(items)
    if not selected:
        is_complete = all(item.state == "signed" for item in items)
        theme.render_message(*(ALL_SIGNED if is_complete else NO_MATCH))
        return
    _render_table(context, selected, case_page)


def open_case(case_page: StreamlitPage, number: int) -> None:
    """Opens a case; the address contains its number, never its identifier."""
    st.switch_page(case_page, query_params={"case": str(number)})


def _render_missing_cases(index: Index, items: list[WorklistItem]) -> None:
    """Names the cases with unreadable findings and the cases without a prediction."""
    readable = {item.case for item in items}
    if damaged := [case for case in index.cases if case not in readable]:
        text = f"Findings missing or damaged: {', '.join(damaged)}. Predict these cases again before you read them."
        st.error(theme.escape_markdown(text), icon=":material/error:")
    if missing := index.missing_cases:
        reasons = "; ".join(f"{case}: {index.failed.get(case, 'not predicted yet')}" for case in missing[:5])
        text = f"{len(missing)} of {len(index.requested)} requested cases have no prediction. {reasons}"
        st.warning(theme.escape_markdown(text), icon=":material/warning:")


def _render_progress(context: ReviewContext, items: list[WorklistItem], case_page: StreamlitPage) -> None:
    num_signed = sum(item.state == "signed" for item in items)
    bar_column, button_column = st.columns([4, 1], vertical_alignment="center")
    bar_column.html(theme.build_bar(num_signed, len(items), f"{num_signed} of {len(items)} cases signed"))
    if item := find_next(triage(items), 0, context.busy_cases):
        label = "Resume reading" if item.state == "open" else "Read next case"
        if button_column.button(label, type="primary", icon=":material/play_arrow:", width="stretch"):
            open_case(case_page, item.number)


def _filter_cases(items: list[WorklistItem]) -> list[WorklistItem]:
    """Shows the filters and returns the cases that match them, in the selected order."""
    names = sorted({finding.name for item in items for finding in item.findings})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        state = st.segmented_control("Show", list(STATES), default="to read") or "all"
        order: Order = st.selectbox("Order", get_args(Order), width=220)
        name = st.selectbox("With finding", ["any", *names], width=220)
        text = st.text_input("Case", placeholder="part of the name", width=220).lower()
    matches = [item for item in items if item.state in STATES[state] and text in item.case.lower()]
    return triage([item for item in matches if name == "any" or name in {f.name for f in item.findings}], order)


def _render_table(context: ReviewContext, items: list[WorklistItem], case_page: StreamlitPage) -> None:
    """Shows one page of the cases, each with a button that opens it."""
    num_pages = (len(items) - 1) // CASES_PER_PAGE + 1
    page = int(st.number_input(f"Page (of {num_pages})", 1, num_pages, width=140)) if num_pages > 1 else 1
    colours = {label.name: label.colour for label in context.index.labels}
    header = "".join(f"<span>{name}</span>" for name in COLUMNS)
    st.columns(COLUMN_WIDTHS, gap="small")[0].html(f"<div class='row head'>{header}</div>")
    for item in items[(page - 1) * CASES_PER_PAGE : page * CASES_PER_PAGE]:
        row_column, button_column = st.columns(COLUMN_WIDTHS, vertical_alignment="center", gap="small")
        row_column.html(_build_row(item, colours, context.busy_cases.get(item.case)))
        label = {"new": "Read", "open": "Resume", "signed": "View"}[item.state]
        if button_column.button(label, key=f"open-{item.number}", width="stretch"):
            open_case(case_page, item.number)


def _build_row(item: WorklistItem, colours: dict[str, str], busy: OpenCase | None) -> str:
    organs = [finding for finding in item.findings if finding.kind == "organ"]
    counts = Counter(finding.name for finding in (*item.lesions, *organs))
    chips = "".join(
        f"<span class=chip>{theme.build_swatch(colours.get(name, '#888'))}{n} {escape(name)}</span>"
        for name, n in counts.items()
    )
    open_by = f"<i class=busy>open by {escape(busy.reviewer)} since {busy.start_time}</i>" if busy else ""
    cells = (
        f"<span class='dot {item.state}' title='{item.state}'></span>",
        f"<span class=case>{escape(item.case)} <small>{escape(format_date(item.date))}</small>{open_by}</span>",
        f"<span>{chips or '<small>no findings</small>'}</span>",
        f"<span>{item.uncertainty:.2f}</span>" if item.findings else "<span>–</span>",
        f"<span>{format_volume(item.largest_ml)}</span>" if item.findings else "<span>–</span>",
        f"<span>{_build_progress(item)}</span>",
    )
    return f"<div class='row {item.state}'>{''.join(cells)}</div>"


def _build_progress(item: WorklistItem) -> str:
    total = len(item.findings)
    return theme.build_bar(item.num_read, total, f"{item.num_read} of {total}") if total else "–"

"""Worklist: which case to read next, and how far along everything is."""

from collections import Counter
from html import escape
from typing import get_args

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import theme, tour
from app.comparison import day
from app.review_context import Desk
from medssl.review.access.open_cases import Lock
from medssl.review.worklist import Order, Row, following, triage

PAGE = 20
WIDTHS = (12, 1)
STATES = {"to read": ("open", "new"), "all": ("open", "new", "signed"), "signed": ("signed",)}


def page(desk: Desk, case: StreamlitPage) -> None:
    """The cases in the order in which reading helps most."""
    st.session_state.pop("drawn", None)
    rows = desk.rows()
    readable = {row.case for row in rows}
    if lost := [case for case in desk.index.cases if case not in readable]:
        said = f"{', '.join(lost)}: findings gone or damaged; predict again. Nobody can read them until then."
        st.error(said, icon=":material/error:")
    if away := desk.index.missing:
        said = "; ".join(f"{case}: {desk.index.unread.get(case, 'not predicted yet')}" for case in away[:5])
        st.warning(f"{len(away)} of {len(desk.index.asked)} cases are missing here. {said}", icon=":material/warning:")
    if not rows:
        theme.message("Nothing to read", "This predictions folder has no cases. Predict some scans, then come back.")
        return
    if desk.access.tour:
        tour.hint(None)
    _progress(desk, rows, case)
    chosen = _filtered(rows)
    if not chosen:
        done = all(row.state == "signed" for row in rows)
        theme.message(*(DONE if done else NO_MATCH))
        return
    _table(desk, chosen, case)


DONE = "All cases are signed", "Thank you. `medssl feedback` turns what you decided into training data."
NO_MATCH = "No case matches", "Widen the filters above."


def _progress(desk: Desk, rows: list[Row], case: StreamlitPage) -> None:
    signed = sum(row.state == "signed" for row in rows)
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.html(theme.bar(signed, len(rows), f"{signed} of {len(rows)} cases signed"))
    if ahead := following(triage(rows), 0, desk.busy):
        said = "Resume reading" if ahead.state == "open" else "Read next case"
        if right.button(said, type="primary", icon=":material/play_arrow:", width="stretch"):
            open_case(case, ahead.number)


def _filtered(rows: list[Row]) -> list[Row]:
    names = sorted({finding.name for row in rows for finding in row.findings})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.segmented_control("Show", list(STATES), default="to read") or "all"
        order: Order = st.selectbox("Order", get_args(Order), width=220)
        name = st.selectbox("With finding", ["any", *names], width=220)
        text = st.text_input("Case", placeholder="part of its name", width=220)
    keep = [row for row in rows if row.state in STATES[shown] and text.lower() in row.case.lower()]
    return triage([row for row in keep if name == "any" or name in {f.name for f in row.findings}], order)


def _table(desk: Desk, rows: list[Row], case: StreamlitPage) -> None:
    sheets = (len(rows) - 1) // PAGE + 1
    sheet = int(st.number_input(f"Page, of {sheets}", 1, sheets, width=140)) if sheets > 1 else 1
    colours = {label.name: label.colour for label in desk.index.labels}
    heads = ("", "Case", "Findings", "Uncertainty", "Largest", "Read")
    st.columns(WIDTHS, gap="small")[0].html(
        f"<div class='row head'>{''.join(f'<span>{head}</span>' for head in heads)}</div>"
    )
    for row in rows[(sheet - 1) * PAGE : sheet * PAGE]:
        left, right = st.columns(WIDTHS, vertical_alignment="center", gap="small")
        left.html(_line(row, colours, desk.busy.get(row.case)))
        said = {"new": "Read", "open": "Resume", "signed": "View"}[row.state]
        if right.button(said, key=f"open-{row.number}", width="stretch"):
            open_case(case, row.number)


def _line(row: Row, colours: dict[str, str], lock: Lock | None) -> str:
    counts = Counter(finding.name for finding in row.findings)
    chips = "".join(
        f"<span class=chip><i style='background:{escape(colours.get(name, '#888'))}'></i>{n} {escape(name)}</span>"
        for name, n in counts.items()
    )
    cells = (
        f"<span class='dot {row.state}' title='{row.state}'></span>",
        f"<span class=case>{escape(row.case)} <small>{day(row.date)}</small>{_busy(lock)}</span>",
        f"<span>{chips or '<small>no findings</small>'}</span>",
        f"<span>{row.uncertainty:.2f}</span>" if row.findings else "<span>–</span>",
        f"<span>{row.largest_ml:.2f} ml</span>" if row.findings else "<span>–</span>",
        f"<span>{_read(row)}</span>",
    )
    return f"<div class='row {row.state}'>{''.join(cells)}</div>"


def _busy(lock: Lock | None) -> str:
    return f"<i class=busy>open by {escape(lock.holder)} since {lock.clock}</i>" if lock else ""


def _read(row: Row) -> str:
    return theme.bar(row.read, len(row.findings), f"{row.read} of {len(row.findings)}") if row.findings else "–"


def open_case(case: StreamlitPage, number: int) -> None:
    """Goes to a case; the address holds its number, never its name."""
    st.switch_page(case, query_params={"case": str(number)})

"""Delivery: a signed case as DICOM SEG and SR, PDF and table, in one file to download, for those who may."""

import time
from functools import lru_cache
from pathlib import Path

import streamlit as st

from app.review_context import Desk
from medssl.errors import BadInput
from medssl.export.export import Wanted, archive
from medssl.predictions_folder import read_index
from medssl.review.access.reviewers import Access
from medssl.review.access.signed_links import Link
from medssl.review.event_store import Store
from medssl.review.worklist import Row

LINK_SECONDS = 600


def button(desk: Desk, row: Row) -> None:
    """Makes the documents of a case that somebody signed, writes down who asked, and offers them."""
    signed = any(reading.signed_at for (case, _), reading in desk.readings.items() if case == row.case)
    if not signed or not desk.reviewer.may("deliver"):
        return
    known, url = st.session_state.get("delivery", (None, ""))
    state = row.number, max(event.id for event in desk.store.events(row.case) if event.action == "sign")
    if known == state:
        st.link_button("Download", url, icon=":material/download:")
    elif st.button("Deliver", icon=":material/outbox:", help=_holds(desk.access)):
        with st.spinner("Writing the documents"):
            _make(desk, row, state)
        st.rerun()


def _holds(access: Access) -> str:
    return "DICOM SEG and SR, PDF, CSV" if access.scans else "PDF and CSV; for DICOM, start with `--scans`"


def _make(desk: Desk, row: Row, state: tuple[int, int]) -> None:
    try:
        delivered(desk.access, *state)
    except BadInput as error:
        st.session_state["refusal"] = str(error)
        return
    desk.record(row, "deliver")
    token = Link(row.number, "delivery", state[1], int(time.time()) + LINK_SECONDS).token(desk.access.key)
    st.session_state["delivery"] = state, f"/api/delivery/{token}"


def delivered(access: Access, number: int, event: int) -> bytes:
    """The documents of the `number`-th case, made once for each sign-off."""
    return _made(access.predictions, access.store, access.scans, number, event)


@lru_cache(maxsize=4)
def _made(predictions: str, store: str, scans: str, number: int, _: int) -> bytes:
    index = read_index(predictions)
    return archive(index, Store(store), index.cases[number - 1], Wanted(Path(scans) if scans else None))

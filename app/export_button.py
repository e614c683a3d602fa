"""Shows the button that exports a signed case as one ZIP file with DICOM SEG and SR, PDF and table."""

import time
from functools import lru_cache
from pathlib import Path

import streamlit as st

from app.act_recorder import ActRecorder, show_toast
from app.review_context import ReviewContext
from medssl.errors import BadInput
from medssl.export.export import ExportOptions, export_archive
from medssl.predictions_folder import read_index
from medssl.review.access.reviewers import ReviewConfig
from medssl.review.access.signed_links import Link
from medssl.review.event_store import EventStore
from medssl.review.worklist import WorklistItem

LIFETIME_S = 600


def render_export_button(context: ReviewContext, recorder: ActRecorder, item: WorklistItem) -> None:
    """Shows the button for a signed case, if the reader's role permits an export, and then the link to the file."""
    sign_off = context.find_sign_off(item.case) if context.reviewer.has_permission("deliver") else None
    if sign_off is None:
        return
    exported, url = st.session_state.get("export", (None, ""))
    if exported == (item.number, sign_off):
        st.link_button("Download", url, icon=":material/download:")
    elif st.button("Export", icon=":material/outbox:", help=_describe_formats(context.config)):
        with st.spinner("Writing the documents"):
            _export(context.config, recorder, item, sign_off)
        st.rerun()


def export_case(config: ReviewConfig, number: int, sign_off: int) -> bytes:
    """Returns the ZIP file of a case, which is written once for each sign-off.

    Args:
        config: The configuration of the app.
        number: The position of the case in the index, from 1.
        sign_off: The id of the latest sign-off of the case.
    """
    return _build_archive(config.predictions, config.audit_db, config.dicom, number, sign_off)


def _describe_formats(config: ReviewConfig) -> str:
    if config.dicom:
        return "DICOM SEG and SR, PDF and CSV"
    return "PDF and CSV. For DICOM, start the review with `--dicom SCANS`"


def _export(config: ReviewConfig, recorder: ActRecorder, item: WorklistItem, sign_off: int) -> None:
    """Writes the file, records the export and keeps the link to the file in the session."""
    try:
        export_case(config, item.number, sign_off)
    except BadInput as error:
        show_toast(str(error))
        return
    recorder.record(item.case, "deliver")
    token = Link(item.number, "export", sign_off, int(time.time()) + LIFETIME_S).sign(config.key)
    st.session_state["export"] = (item.number, sign_off), f"/api/export/{token}"


@lru_cache(maxsize=4)
def _build_archive(predictions: str, database: str, dicom: str, number: int, _sign_off: int) -> bytes:
    index = read_index(predictions)
    options = ExportOptions(Path(dicom) if dicom else None)
    return export_archive(index, EventStore(database), index.cases[number - 1], options)

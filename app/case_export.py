"""Exports a signed case as one ZIP file with DICOM SEG and SR, PDF and table, behind a signed link."""

import time
from functools import lru_cache
from pathlib import Path

import streamlit as st

from app.act_recorder import ActRecorder
from app.review_context import ReviewContext
from medssl.export.archive_delivery import send_archive
from medssl.export.export import ExportOptions, export_archive
from medssl.predictions_folder import read_index
from medssl.review.access.reviewers import ReviewConfig
from medssl.review.access.signed_links import Link
from medssl.review.event_store import EventStore
from medssl.review.reading import ActRejected
from medssl.review.viewer_acts import ControlEvent

LIFETIME_S = 600


def find_exportable(context: ReviewContext, number: int) -> int | None:
    """Returns the id of the sign-off that this reader may export; None if there is none or the role forbids it."""
    case = context.index.cases[number - 1]
    return context.find_sign_off(case) if context.reviewer.has_permission("deliver") else None


def find_download_url(number: int, sign_off: int | None) -> str:
    """Returns the address of the file that was exported in this browser session; empty if there is none."""
    exported, url = st.session_state.get("export", (None, ""))
    return str(url) if exported == (number, sign_off) else ""


def deliver_case(context: ReviewContext, recorder: ActRecorder, number: int, event: ControlEvent) -> None:
    """Writes the file, stores it in the archive if there is one, records the export and keeps its link in the session.

    Raises:
        ActRejected: If the case is not signed, or the reader's role does not permit an export.
        BadInput: If the case cannot be exported.
    """
    sign_off = find_exportable(context, number)
    if sign_off is None:
        raise ActRejected(f"As {context.reviewer.role} you may not export this case, or it is not signed.")
    content = export_case(context.config, number, sign_off)
    if context.config.dicomweb:
        send_archive(context.config.dicomweb, content)
    recorder.record_event(context.index.cases[number - 1], event)
    sign_in = st.session_state.get("sign_in", "")
    link = Link(number, "export", sign_off, int(time.time()) + LIFETIME_S, sign_in)
    st.session_state["export"] = (number, sign_off), f"/api/export/{link.sign(context.config.key)}"


def export_case(config: ReviewConfig, number: int, sign_off: int) -> bytes:
    """Returns the ZIP file of a case, which is written once for each sign-off.

    Args:
        config: The configuration of the app.
        number: The position of the case in the index, from 1.
        sign_off: The id of the latest sign-off of the case.
    """
    return _build_archive(config.predictions, config.audit_db, config.dicom, number, sign_off)


def describe_formats(config: ReviewConfig) -> str:
    """Returns what an export contains."""
    if config.dicomweb:
        return "DICOM SEG and SR, also into the archive, PDF and CSV"
    if config.dicom:
        return "DICOM SEG and SR, PDF and CSV"
    return "PDF and CSV. For DICOM, start the review with --dicom SCANS"


@lru_cache(maxsize=4)
def _build_archive(predictions: str, database: str, dicom: str, number: int, _sign_off: int) -> bytes:
    index = read_index(predictions)
    options = ExportOptions(Path(dicom) if dicom else None)
    return export_archive(index, EventStore(database), index.cases[number - 1], options)

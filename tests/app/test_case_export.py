"""A signed case can be exported by those who may, whole, and under an address without the name of the case."""

import io
import time
import zipfile
from dataclasses import replace

import pytest
from pydicom import dcmread
from streamlit.testing.v1 import AppTest

from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.predictions_folder import NOTICE
from medssl.review.access.signed_links import Link
from medssl.review.event import Act
from medssl.review.event_store import EventStore
from tests.helpers.app_client import make_client


@pytest.fixture
def open_case(access, predictions, tmp_path, monkeypatch):
    """A function from a role to the header of a case that ana accepted and signed, with its DICOM files."""
    image = replace(nifti.read(predictions / "case-b" / "image.nii.gz"), unit="HU")
    write_series(image.reorient("LPS"), tmp_path / "scans", SeriesInfo("case-b"))
    store = EventStore(access.audit_db)
    fields = {"session": "s", "case": "case-b", "reviewer": "ana", "role": "senior"}
    store.record(Act(**fields, number=1, action="accept", finding="case-b-1-1"))
    store.record(Act(**fields, number=2, action="sign", details="[]"))

    def open_as(role: str, **changed):
        config = access.model_copy(update={"role": role, "dicom": str(tmp_path / "scans")} | changed)
        for name, value in config.to_environment().items():
            monkeypatch.setenv(name, value)
        return config

    return open_as


def export_case_2(sent: bool = True) -> AppTest:
    """Asks for the export of case-b as the viewer does, then describes the case to the viewer."""

    def script(sent: bool) -> None:
        import streamlit as st

        from app import auth, review_context
        from app.act_recorder import ActRecorder
        from app.pages import case
        from app.viewer_inbox import ViewerInbox

        context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
        inbox = ViewerInbox(context, ActRecorder.from_context(context), 2)
        if sent:
            inbox.receive([{"client": "c", "seq": 1, "at": "", "kind": "deliver"}])
        st.session_state["answer"] = inbox.answer
        st.session_state["status"] = case._describe_case(context, context.load_case(2))

    app = AppTest.from_function(script, args=(sent,), default_timeout=60).run()
    assert not app.exception
    return app


def test_a_signed_case_is_exported_with_the_notice_and_recorded(open_case):
    access = open_case("senior")
    app = export_case_2()
    assert [e.action for e in EventStore(access.audit_db).read_events()] == ["accept", "sign", "deliver"]
    url = app.session_state["status"]["download_url"]
    assert "case-b" not in url
    answer = make_client(access).get(url)
    assert answer.headers["content-disposition"] == 'attachment; filename="case-2.zip"'
    assert answer.headers["cache-control"] == "private, no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        names = [f"case-b/{name}" for name in ("findings.json", "montage.png", "report.pdf", "seg.dcm", "sr.dcm")] + [
            "findings.csv"
        ]
        assert sorted(file.namelist()) == sorted(names)
        table = file.read("findings.csv").decode()
        assert NOTICE in table and EventStore(access.audit_db).read_events()[1].hash in table
        for name in ("case-b/seg.dcm", "case-b/sr.dcm"):
            assert dcmread(io.BytesIO(file.read(name))).SeriesDescription.endswith(NOTICE)
        assert dcmread(io.BytesIO(file.read("case-b/sr.dcm"))).VerificationFlag == "VERIFIED"


def test_only_seniors_and_admins_may_export(open_case):
    access = open_case("reader")
    app = export_case_2()
    assert not app.session_state["status"]["may_deliver"] and "may not export" in str(app.session_state["answer"])
    assert [e.action for e in EventStore(access.audit_db).read_events()] == ["accept", "sign"]
    open_case("admin", reviewer="boss")
    assert export_case_2(sent=False).session_state["status"]["may_deliver"]


def test_a_failed_export_shows_the_reason_and_is_not_recorded(open_case, tmp_path):
    access = open_case("senior", dicom=str(tmp_path / "none"))
    assert "no such folder" in export_case_2().session_state["answer"]["refused"]["reason"]
    assert [e.action for e in EventStore(access.audit_db).read_events()] == ["accept", "sign"]


def test_image_and_export_links_are_not_interchangeable(open_case):
    access = open_case("senior")
    soon = int(time.time()) + 60
    export, image = (Link(2, kind, 2, soon).sign(access.key) for kind in ("export", "image"))
    late = Link(2, "export", 2, soon - 120).sign(access.key)
    ask = make_client(access)
    for path in (f"export/{image}", f"volume/{export}/header.json", f"volume/{export}/voxels", f"export/{late}",
                 "export/x", "export/..%2f..%2findex.json"):  # fmt: skip
        assert ask.get(f"/api/{path}").status_code == 404

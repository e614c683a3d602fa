"""A signed case can be exported by those who may, whole, and under an address without the name of the case."""

import io
import time
import warnings
import zipfile
from dataclasses import replace

import pytest
from pydicom import dcmread
from starlette.applications import Starlette
from streamlit.testing.v1 import AppTest

from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.predictions_folder import NOTICE
from medssl.review.access.signed_links import Link
from medssl.review.event import Act
from medssl.review.event_store import EventStore


@pytest.fixture
def open_case(access, predictions, tmp_path, monkeypatch):
    """A function from a role to the header of a case that ana accepted and signed, with its DICOM files."""
    image = replace(nifti.read(predictions / "case-b" / "image.nii.gz"), unit="HU")
    write_series(image.reorient("LPS"), tmp_path / "scans", SeriesInfo("case-b"))
    store = EventStore(access.audit_db)
    fields = {"session": "s", "case": "case-b", "reviewer": "ana", "role": "senior"}
    store.record(Act(**fields, number=1, action="accept", finding="case-b-1-1"))
    store.record(Act(**fields, number=2, action="sign", details="[]"))

    def case_header_script() -> None:
        from app import auth, case_header, review_context
        from app.act_recorder import ActRecorder

        context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
        case_header.render_case_header(context, ActRecorder.from_context(context), context.load_case(2), None)

    def open_as(role: str, **changed) -> tuple[AppTest, object]:
        config = access.model_copy(update={"role": role, "dicom": str(tmp_path / "scans")} | changed)
        for name, value in config.to_environment().items():
            monkeypatch.setenv(name, value)
        app = AppTest.from_function(case_header_script, default_timeout=60).run()
        assert not app.exception
        return app, config

    return open_as


def client(access):
    from app.api import build_routes

    with warnings.catch_warnings():  # it prefers a client that is not on every machine
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient(Starlette(routes=build_routes(access)))


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_a_signed_case_is_exported_with_the_notice_and_recorded(open_case):
    app, access = open_case("senior")
    next(b for b in app.button if b.label == "Export").click().run()
    assert not app.exception and "Export" not in labels(app)
    assert [e.action for e in EventStore(access.audit_db).read_events()] == ["accept", "sign", "deliver"]
    url = app.session_state["export"][1]
    assert "case-b" not in url
    answer = client(access).get(url)
    assert answer.headers["content-disposition"] == 'attachment; filename="case-2.zip"'
    assert answer.headers["cache-control"] == "private, no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        names = [f"case-b/{name}" for name in ("report.pdf", "seg.dcm", "sr.dcm")] + ["findings.csv"]
        assert sorted(file.namelist()) == sorted(names)
        table = file.read("findings.csv").decode()
        assert NOTICE in table and EventStore(access.audit_db).read_events()[1].hash in table
        for name in ("case-b/seg.dcm", "case-b/sr.dcm"):
            assert dcmread(io.BytesIO(file.read(name))).SeriesDescription == NOTICE
        assert dcmread(io.BytesIO(file.read("case-b/sr.dcm"))).VerificationFlag == "VERIFIED"


def test_only_seniors_and_admins_see_the_button(open_case):
    assert "Export" not in labels(open_case("reader")[0])
    assert "Export" in labels(open_case("admin", reviewer="boss")[0])


def test_a_failed_export_shows_the_reason_and_is_not_recorded(open_case, tmp_path):
    app, access = open_case("senior", dicom=str(tmp_path / "none"))
    next(b for b in app.button if b.label == "Export").click().run()
    assert "no such folder" in app.session_state["toast"]
    assert [e.action for e in EventStore(access.audit_db).read_events()] == ["accept", "sign"]


def test_image_and_export_links_are_not_interchangeable(open_case):
    _, access = open_case("senior")
    soon = int(time.time()) + 60
    export, image = (Link(2, kind, 2, soon).sign(access.key) for kind in ("export", "image"))
    late = Link(2, "export", 2, soon - 120).sign(access.key)
    ask = client(access)
    for path in (f"export/{image}", f"volume/{export}/header.json", f"volume/{export}/voxels", f"export/{late}",
                 "export/x", "export/..%2f..%2findex.json"):  # fmt: skip
        assert ask.get(f"/api/{path}").status_code == 404

"""A signed case can be taken away by those who may, whole, once asked, and under no name in the address."""

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
from medssl.io.dicom.series_writer import SeriesInfo, dicom_series
from medssl.predictions_folder import NOTICE
from medssl.review.access.signed_links import Link
from medssl.review.event import Act
from medssl.review.event_store import Store


@pytest.fixture
def desk(access, predictions, tmp_path, monkeypatch):
    """A function from settings to the strip above a case that ana accepted and signed, with its scans at hand."""
    image = replace(nifti.read(predictions / "case-b" / "image.nii.gz"), unit="HU")
    dicom_series(image.oriented("LPS"), tmp_path / "scans", SeriesInfo("case-b"))
    store = Store(access.store)
    said = {"session": "s", "case": "case-b", "reviewer": "ana", "role": "senior"}
    store.record(Act(**said, number=1, action="accept", finding="case-b-1-1"))
    store.record(Act(**said, number=2, action="sign", details="[]"))

    def strip() -> None:
        from app import auth, case_header, review_context

        desk = review_context.desk(auth.reviewer(review_context.access()))
        case_header.draw(desk, desk.row(2), None)

    def open_as(role: str, **changed) -> tuple[AppTest, object]:
        told = access.model_copy(update={"role": role, "scans": str(tmp_path / "scans")} | changed)
        for name, value in told.to_environment().items():
            monkeypatch.setenv(name, value)
        app = AppTest.from_function(strip, default_timeout=60).run()
        assert not app.exception
        return app, told

    return open_as


def client(access):
    from app.api import routes

    with warnings.catch_warnings():  # it prefers a client that is not on every machine
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient(Starlette(routes=routes(access)))


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_what_was_signed_is_handed_out_with_the_banner_in_it_and_written_down(desk):
    app, access = desk("senior")
    next(b for b in app.button if b.label == "Deliver").click().run()
    assert not app.exception and "Deliver" not in labels(app)
    assert [e.action for e in Store(access.store).events()] == ["accept", "sign", "deliver"]
    url = app.session_state["delivery"][1]
    assert "case-b" not in url
    answer = client(access).get(url)
    assert answer.headers["content-disposition"] == 'attachment; filename="case-2.zip"'
    assert answer.headers["cache-control"] == "private, no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        names = [f"case-b/{name}" for name in ("report.pdf", "seg.dcm", "sr.dcm")] + ["findings.csv"]
        assert sorted(file.namelist()) == sorted(names)
        table = file.read("findings.csv").decode()
        assert NOTICE in table and Store(access.store).events()[1].hash in table
        for name in ("case-b/seg.dcm", "case-b/sr.dcm"):
            assert dcmread(io.BytesIO(file.read(name))).SeriesDescription == NOTICE
        assert dcmread(io.BytesIO(file.read("case-b/sr.dcm"))).VerificationFlag == "VERIFIED"


def test_readers_are_not_offered_it_and_admins_are(desk):
    assert "Deliver" not in labels(desk("reader")[0])
    assert "Deliver" in labels(desk("admin", reviewer="boss")[0])


def test_a_case_that_cannot_be_delivered_says_why_and_nothing_is_written_down(desk, tmp_path):
    app, access = desk("senior", scans=str(tmp_path / "none"))
    next(b for b in app.button if b.label == "Deliver").click().run()
    assert "no such folder" in app.session_state["refusal"]
    assert [e.action for e in Store(access.store).events()] == ["accept", "sign"]


def test_a_link_to_an_image_delivers_nothing_and_the_other_way_round(desk):
    _, access = desk("senior")
    soon = int(time.time()) + 60
    delivery, image = (Link(2, kind, 2, soon).token(access.key) for kind in ("delivery", "image"))
    late = Link(2, "delivery", 2, soon - 120).token(access.key)
    ask = client(access)
    for path in (f"delivery/{image}", f"volume/{delivery}/header.json", f"volume/{delivery}/voxels", f"delivery/{late}",
                 "delivery/x", "delivery/..%2f..%2findex.json"):  # fmt: skip
        assert ask.get(f"/api/{path}").status_code == 404

"""A page says at once that it is opening, and the viewer's code travels once, under an address of its own."""

import warnings

import pytest
from starlette.applications import Starlette

from app import frontend
from medssl.predictions_folder import NOTICE
from medssl.viewer import component


@pytest.fixture
def client():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient(Starlette(routes=frontend.routes()))


def test_every_page_begins_with_a_loading_state_in_the_place_that_streamlit_fills(client):
    for path in frontend.PAGES:
        page = client.get(path).text
        assert "Opening the review" in page and page.count('<div id="root">') == 1 and "/static/js/" in page
        assert "<title>Review</title>" in page and NOTICE in page


def test_the_viewer_is_kept_by_the_browser_and_the_page_sends_only_its_address(client):
    answer = client.get(component.address())
    assert answer.text == component.javascript() and "immutable" in answer.headers["cache-control"]
    assert "export default mount" in answer.text and ".mv-bar" in answer.text
    assert component.address() in component.loader() and len(component.loader()) < 400


def test_another_viewer_has_another_address(monkeypatch):
    before = component.address()
    monkeypatch.setattr(component, "javascript", lambda: "export default 1;")
    assert component.address() != before

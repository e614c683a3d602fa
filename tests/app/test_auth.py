"""Who sees a case: people with a role, for as long as they are there; and each only what their role may."""

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from medssl.predictions_folder import NOTICE
from medssl.review.event import Act
from medssl.review.event_store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def signed_in(access, monkeypatch):
    """A function from what an identity provider claims to the first page."""

    def page(**claims) -> AppTest:
        oidc = access.model_copy(update={"mode": "oidc", "roles": {"ana@site": "senior"}})
        for name, value in oidc.to_environment().items():
            monkeypatch.setenv(name, value)
        app = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=30)
        app.user = claims
        return checked(app.run())

    return page


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(str(element.proto) for element in app.main if element.type == "html")


def strip() -> None:
    """The line above a case, as its own script."""
    from app import auth, case_header, review_context

    desk = review_context.desk(auth.reviewer(review_context.access()))
    case_header.draw(desk, desk.row(2), None)


def claimed(minutes_ago: float, **claims):
    return {"is_logged_in": True, "email": "ana@site", "iat": int(time.time() - 60 * minutes_ago)} | claims


def test_who_signed_in_and_has_a_role_reads(signed_in):
    app = signed_in(**claimed(0))
    assert "case-a" in text(app) and "ana@site" in text(app) and "LOCAL MODE" not in text(app)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({}, "Not signed in"),
        ({"is_logged_in": False}, "Not signed in"),
        (claimed(0, email="eve@site"), "No role here"),
        (claimed(0, email_verified=False), "No role here"),
    ],
)
def test_a_stranger_sees_no_case(signed_in, claims, said):
    app = signed_in(**claims)
    assert said in text(app) and NOTICE in text(app) and "case-a" not in text(app)


def test_an_old_sign_in_must_be_made_anew_on_a_new_page_too(signed_in):
    app = signed_in(**claimed(21))
    assert "Paused" in text(app) and NOTICE in text(app) and "case-a" not in text(app)
    assert [b.label for b in app.button] == ["Sign in again"]


def test_a_sign_in_that_is_in_use_lasts(signed_in, monkeypatch):
    claims = claimed(15)
    assert "case-a" in text(signed_in(**claims))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 60)
    assert "case-a" in text(signed_in(**claims))
    monkeypatch.setattr(time, "time", lambda: now + 31 * 60)
    assert "Paused" in text(signed_in(**claims))


def test_an_admin_cannot_sign(opened, monkeypatch):
    admin = opened.model_copy(update={"role": "admin"})
    for name, value in admin.to_environment().items():
        monkeypatch.setenv(name, value)
    said = {"session": "s", "number": 1, "case": "case-b", "reviewer": "ana", "role": "admin"}
    Store(opened.store).record(Act(**said, action="accept", finding="case-b-1-1"))
    app = checked(AppTest.from_function(strip, default_timeout=30).run())
    assert next(b for b in app.button if b.label == "Sign off").disabled


def test_what_a_role_may_not_is_not_stored_whatever_the_browser_sends(opened, monkeypatch):
    admin = opened.model_copy(update={"role": "admin"})
    for name, value in admin.to_environment().items():
        monkeypatch.setenv(name, value)

    def forged() -> None:
        from app import auth, review_context

        desk = review_context.desk(auth.reviewer(review_context.access()))
        desk.record(desk.row(3), "sign", details="[]")

    app = checked(AppTest.from_function(forged, default_timeout=30).run())
    assert Store(opened.store).events() == []
    assert app.session_state["refusal"] == "As admin you may not sign."

"""Only people with a role see a case, until they are idle, and each can do only what the role permits."""

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from medssl.predictions_folder import NOTICE
from medssl.review.event_store import EventStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def signed_in(access, monkeypatch):
    """A function from the claims of an identity provider to the first page."""

    def page(**claims) -> AppTest:
        oidc = access.model_copy(update={"mode": "oidc", "roles": {"ana@site": "senior"}})
        for name, value in oidc.to_environment().items():
            monkeypatch.setenv(name, value)
        app = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=30)
        app.user = claims
        return require_no_exception(app.run())

    return page


def require_no_exception(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def text(app: AppTest) -> str:
    return " ".join(str(element.proto) for element in app.main if element.type == "html")


def make_claims(minutes_ago: float, **claims):
    return {"is_logged_in": True, "email": "ana@site", "iat": int(time.time() - 60 * minutes_ago)} | claims


def test_a_signed_in_person_with_a_role_reads(signed_in):
    app = signed_in(**make_claims(0))
    assert "case-a" in text(app) and "ana@site" in text(app) and "LOCAL MODE" not in text(app)


@pytest.mark.parametrize(
    ("claims", "title"),
    [
        ({}, "Not signed in"),
        ({"is_logged_in": False}, "Not signed in"),
        (make_claims(0, email="eve@site"), "No role in this review"),
        (make_claims(0, email_verified=False), "No role in this review"),
    ],
)
def test_a_stranger_sees_no_case(signed_in, claims, title):
    app = signed_in(**claims)
    assert title in text(app) and NOTICE in text(app) and "case-a" not in text(app)


def test_an_old_sign_in_expires_on_a_new_page_too(signed_in):
    app = signed_in(**make_claims(21))
    assert "Paused" in text(app) and NOTICE in text(app) and "case-a" not in text(app)
    assert [b.label for b in app.button] == ["Sign in again"]


def test_a_sign_in_that_is_in_use_lasts(signed_in, monkeypatch):
    claims = make_claims(15)
    assert "case-a" in text(signed_in(**claims))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 60)
    assert "case-a" in text(signed_in(**claims))
    monkeypatch.setattr(time, "time", lambda: now + 31 * 60)
    assert "Paused" in text(signed_in(**claims))


def test_an_admin_cannot_sign(app_config, monkeypatch):
    """The viewer disables the button with the reason."""

    def show_obstacle() -> None:
        import streamlit as st

        from app import auth, review_context
        from app.pages import case

        context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
        st.text(case._describe_case(context, context.load_case(2))["sign_obstacle"])

    obstacles = []
    for role in ("reader", "admin"):
        for name, value in app_config.model_copy(update={"role": role}).to_environment().items():
            monkeypatch.setenv(name, value)
        app = require_no_exception(AppTest.from_function(show_obstacle, default_timeout=30).run())
        obstacles.append(app.text[0].value)
    assert obstacles == ["", "An admin cannot sign off"]


def test_a_forbidden_act_is_not_stored_whatever_the_browser_sends(app_config, monkeypatch):
    admin = app_config.model_copy(update={"role": "admin"})
    for name, value in admin.to_environment().items():
        monkeypatch.setenv(name, value)

    def forge_signature() -> None:
        from app import auth, review_context
        from app.act_recorder import ActRecorder

        context = review_context.load_context(auth.require_reviewer(review_context.read_config()))
        ActRecorder.from_context(context).record("case-c", "sign")

    app = require_no_exception(AppTest.from_function(forge_signature, default_timeout=30).run())
    assert EventStore(app_config.audit_db).read_events() == []
    assert app.session_state["toast"] == "As admin you may not sign."

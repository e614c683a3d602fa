"""Signs readers in and pauses the page of a reader who is idle."""

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import sign_ins, theme
from medssl.review.access.reviewers import ReviewConfig, Reviewer, extract_email, identify


def require_reviewer(config: ReviewConfig) -> Reviewer:
    """Returns the reader at the page; stops the page if the reader is unknown or was idle for too long."""
    claims: Mapping[str, Any] = st.user.to_dict() if config.mode == "oidc" else {}
    reviewer = identify(config, dict(st.context.headers), claims)
    if reviewer is None:
        _show_sign_in(config, claims)
    else:
        _check_idle_time(config, reviewer, claims)
    return reviewer or st.stop()


def _show_sign_in(config: ReviewConfig, claims: Mapping[str, Any]) -> None:
    hint = "Ask the administrator of this review to add you as reader, senior or admin."
    if config.mode == "oidc" and claims.get("is_logged_in"):
        account = extract_email(claims) or "An unverified e-mail address"
        container = _show_closed_page(config, "No role in this review", f"{account} has no access. {hint}")
        container.button("Sign in with another account", on_click=st.logout)
    else:
        container = _show_closed_page(config, "Not signed in", f"Sign in to read cases. {hint}")
        if config.mode == "oidc":
            container.button("Sign in", type="primary", on_click=st.login)
    st.stop()


def _check_idle_time(config: ReviewConfig, reviewer: Reviewer, claims: Mapping[str, Any]) -> None:
    """Asks an idle reader to sign in again, on a new page too; Streamlit's own cookie would last 30 days."""
    sign_in = st.session_state["sign_in"] = sign_ins.name_sign_in(config, reviewer, claims)
    last_use = (sign_ins.find_last_use(sign_in) or claims.get("iat", 0)) if config.mode == "oidc" else None
    last_seen = st.session_state.get("last_seen", last_use)
    if last_seen is not None and time.time() - last_seen > config.idle_minutes * 60:
        text = f"There was no activity for {config.idle_minutes:g} minutes. All your work is saved."
        container = _show_closed_page(config, "Paused", text)
        if config.mode == "oidc":
            container.button("Sign in again", type="primary", on_click=_sign_out, args=(sign_in,))
        else:
            label = f"Continue as {theme.escape_markdown(reviewer.name)}"
            container.button(label, type="primary", on_click=_mark_active, args=(sign_in,))
        st.stop()
    _mark_active(sign_in)
    if config.mode == "oidc":
        st.button("Sign out", type="tertiary", on_click=_sign_out, args=(sign_in,))
    st.fragment(_hide_when_idle, run_every=30)(config.idle_minutes * 60)


def _show_closed_page(config: ReviewConfig, title: str, text: str) -> DeltaGenerator:
    """Shows the header and a message in place of the page; returns the container below, for buttons."""
    theme.render_header(config, None)
    return theme.render_message(title, text)


def _hide_when_idle(seconds: float) -> None:
    """Runs the page again when the reader is idle, which removes the images from the screen."""
    if time.time() - st.session_state["last_seen"] > seconds:
        st.rerun(scope="app")


def _mark_active(sign_in: str) -> None:
    sign_ins.mark_use(sign_in)
    st.session_state["last_seen"] = time.time()


def _sign_out(sign_in: str) -> None:
    """Signs the reader out and ends the links to images on all pages of this sign-in."""
    sign_ins.end(sign_in)
    st.logout()

"""Signing in: who is at the page, and nobody for longer than they are there."""

import time

import streamlit as st

from app import look
from medssl.review.access import Access, Reviewer, identify


def reviewer(access: Access) -> Reviewer:
    """The person at the page; the page ends here for strangers and for those who have left."""
    signed_in = st.user.get("email") if access.mode == "oidc" and st.user.get("is_logged_in") else None
    known = identify(access, dict(st.context.headers), signed_in)
    if known is None:
        _turn_away(access, signed_in)
    else:
        _stay_awake(access, known)
    return known or st.stop()


def _turn_away(access: Access, signed_in: str | None) -> None:
    said = f"{signed_in} has no role here." if signed_in else "Sign in to read."
    look.message("Not signed in", f"{said} Ask the person who runs this review to add you as reader, senior or admin.")
    if access.mode == "oidc" and not signed_in:
        st.button("Sign in", type="primary", on_click=st.login)
    st.stop()


def _stay_awake(access: Access, known: Reviewer) -> None:
    now, last = time.time(), st.session_state.get("last_seen")
    if last is not None and now - last > access.idle_minutes * 60:
        look.message("Paused", f"Nothing happened for {access.idle_minutes:g} minutes. Everything you did is saved.")
        st.button(f"Continue as {known.name}", type="primary", on_click=_touch)
        st.stop()
    _touch()
    st.fragment(_watch, run_every=30)(access.idle_minutes * 60)


def _watch(seconds: float) -> None:
    """Takes the images off a screen that nobody sits at."""
    if time.time() - st.session_state["last_seen"] > seconds:
        st.rerun(scope="app")


def _touch() -> None:
    st.session_state["last_seen"] = time.time()

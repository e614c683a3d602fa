"""Signing in: who is at the page, and nobody for longer than they are there."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import theme
from medssl.review.access.reviewers import Access, Reviewer, account, identify


def reviewer(access: Access) -> Reviewer:
    """The person at the page; the page ends here for strangers and for those who have left."""
    claims: Mapping[str, Any] = st.user.to_dict() if access.mode == "oidc" else {}
    known = identify(access, dict(st.context.headers), claims)
    if known is None:
        _turn_away(access, claims)
    else:
        _stay_awake(access, known, claims)
    return known or st.stop()


def _turn_away(access: Access, claims: Mapping[str, Any]) -> None:
    told = "Ask the person who runs this review to add you as reader, senior or admin."
    if access.mode == "oidc" and claims.get("is_logged_in"):
        who = account(claims) or "An address that was not confirmed"
        below = _closed(access, "No role here", f"{who} may not read. {told}")
        below.button("Sign in as somebody else", on_click=st.logout)
    else:
        below = _closed(access, "Not signed in", f"Sign in to read. {told}")
        if access.mode == "oidc":
            below.button("Sign in", type="primary", on_click=st.login)
    st.stop()


def _stay_awake(access: Access, known: Reviewer, claims: Mapping[str, Any]) -> None:
    """Streamlit's cookie lasts 30 days; here a sign-in must be made anew once it was idle, also on a new page."""
    signed_in = f"{known.name} {claims.get('iat')}"
    first = _signs_of_life().get(signed_in, claims.get("iat", 0)) if access.mode == "oidc" else None
    last = st.session_state.get("last_seen", first)
    if last is not None and time.time() - last > access.idle_minutes * 60:
        said = f"Nothing happened for {access.idle_minutes:g} minutes. Everything you did is saved."
        below = _closed(access, "Paused", said)
        if access.mode == "oidc":
            below.button("Sign in again", type="primary", on_click=st.logout)
        else:
            below.button(f"Continue as {known.name}", type="primary", on_click=_touch, args=(signed_in,))
        st.stop()
    _touch(signed_in)
    st.fragment(_watch, run_every=30)(access.idle_minutes * 60)


@cache
def _signs_of_life() -> dict[str, float]:
    """When each sign-in was last used, on any page; a restarted server knows of none, so old ones are made anew."""
    return {}


def _closed(access: Access, title: str, text: str) -> DeltaGenerator:
    """What stands in the place of every page, the notice above it too, and the place below it for the way on."""
    theme.header(access, None)
    return theme.message(title, text)


def _watch(seconds: float) -> None:
    """Takes the images off a screen that nobody sits at."""
    if time.time() - st.session_state["last_seen"] > seconds:
        st.rerun(scope="app")


def _touch(signed_in: str) -> None:
    _signs_of_life()[signed_in] = st.session_state["last_seen"] = time.time()

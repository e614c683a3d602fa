"""Renders the parts that all pages share, in a dark theme for reading rooms; all text from outside is escaped."""

import re
import time
from html import escape
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from medssl.predictions_folder import NOTICE
from medssl.review.access.reviewers import ReviewConfig, Reviewer

FIRST_LOOK_S = 10  # how long the notice about the local mode stays a bar of its own


def apply_theme() -> None:
    """Adds the style sheet of the app to the page."""
    st.html(Path(__file__).with_name("theme.css"))


def render_header(config: ReviewConfig, reviewer: Reviewer | None) -> None:
    """Shows the line above every page: the app, the reader and the notice about the intended use."""
    badge = f"<span class=who>{escape(reviewer.name)} · {reviewer.role}</span>" if reviewer else ""
    is_local = config.mode == "local"
    is_first_look = time.time() - st.session_state.setdefault("first_look", time.time()) < FIRST_LOOK_S
    text = f"There is no sign-in: everyone at this machine reads as {config.reviewer}."
    quiet = f"<span class=quiet title='{escape(text)}'>LOCAL MODE</span>" if is_local and not is_first_look else ""
    st.html(f"<div class=top><b>medssl</b> review{badge}{quiet}<span class=notice>{escape(NOTICE)}</span></div>")
    if is_local and is_first_look:
        st.html(f"<div class=local><b>LOCAL MODE</b> {escape(text)} Other machines cannot open this page.</div>")


def render_message(title: str, text: str) -> DeltaGenerator:
    """Shows a message in place of content; returns the container below it, for buttons and links."""
    st.html(f"<div class=message><h2>{escape(title)}</h2><p>{escape(text)}</p></div>")
    return st.container(horizontal=True, horizontal_alignment="center")


def escape_markdown(text: str) -> str:
    """Returns text on one line that Streamlit's Markdown shows as it is: no link, image, formula, icon or colour."""
    return re.sub(r"([\\`*_{}\[\]<>!|~$:&@]|(?<=www)\.)", r"\\\1", " ".join(text.split()))


def show_error(_: Exception) -> bool:
    """Shows a message in place of a page that failed; the details are in the log of the server only."""
    render_message(
        "This page failed",
        "All your work is saved. Reload the page. If it fails again, contact the administrator of this review.",
    )
    return True


def build_bar(done: int, total: int, text: str) -> str:
    """Returns the HTML of a thin progress bar with a text below it."""
    return f"<progress class=bar value={done if total else 1} max={total or 1}></progress><small>{escape(text)}</small>"


def build_swatch(colour: str) -> str:
    """Returns the HTML of a small square in a colour; the content security policy forbids attributes with styles."""
    return f"<font class=swatch color='{escape(colour)}'>&#9632;</font>"

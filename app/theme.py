"""The looks of every page: a dark reading room, calm and dense; all text that is not ours is escaped."""

from html import escape
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from medssl.finding import Decision
from medssl.predictions_folder import NOTICE
from medssl.review.access.reviewers import Access, Reviewer

SAID: dict[Decision, str] = {
    "accept": "accepted",
    "reject": "rejected",
    "unsure": "unsure",
    "edit": "corrected",
    "relabel": "relabelled",
    "missed": "added",
}


def dress() -> None:
    """The style sheet of the app."""
    st.html(Path(__file__).with_name("theme.css"))


def header(access: Access, reviewer: Reviewer | None) -> None:
    """The line above every page: what this is, who reads, and what it must not be used for."""
    who = f"<span class=who>{escape(reviewer.name)} · {reviewer.role}</span>" if reviewer else ""
    st.html(f"<div class=top><b>medssl</b> review{who}<span class=notice>{escape(NOTICE)}</span></div>")
    if access.mode == "local":
        name = escape(access.reviewer)
        st.html(
            f"<div class=local><b>LOCAL MODE</b> Nobody signs in: everyone at this machine reads as <b>{name}</b>, "
            "and only this machine can open the page.</div>"
        )


def message(title: str, text: str) -> DeltaGenerator:
    """A designed state in place of content: empty, done, paused, something to put right; and the place for a way on."""
    st.html(f"<div class=message><h2>{escape(title)}</h2><p>{escape(text)}</p></div>")
    return st.container(horizontal=True, horizontal_alignment="center")


def broken(_: Exception) -> bool:
    """The page in place of one that failed; what failed is in the server's log, and its words are for nobody else."""
    message(
        "This page failed",
        "Everything you did is saved. Reload the page; if it fails again, tell who runs this review.",
    )
    return True


def bar(done: int, of: int, said: str) -> str:
    """A thin progress bar with its words."""
    share = 100 * done / of if of else 100
    return f"<div class=bar><i style='width:{share:.0f}%'></i></div><small>{escape(said)}</small>"

"""The server: Streamlit's pages beside our own signed route for volumes, behind strict headers."""

from pathlib import Path

import streamlit as st

from app import frontend, logs, theme
from app.access_middleware import middleware
from app.api import routes
from medssl.review.access.reviewers import Access

logs.nameless()
access = Access.from_environment()
app = st.App(
    Path(__file__).with_name("script") / "entry.py",
    routes=[*routes(access), *frontend.routes()],
    middleware=middleware(access),
    on_script_error=theme.broken,
)

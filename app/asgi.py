"""The server: Streamlit's pages beside our own signed route for volumes, behind strict headers."""

from pathlib import Path

import streamlit as st

from app import frontend, logs, look
from app.api import routes
from app.gate import middleware
from medssl.review.access import Access

logs.nameless()
access = Access.from_environment()
app = st.App(
    Path(__file__).with_name("script") / "review.py",
    routes=[*routes(access), *frontend.routes()],
    middleware=middleware(access),
    on_script_error=look.broken,
)

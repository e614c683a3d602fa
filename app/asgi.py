"""The server of the review app: Streamlit's pages and the routes for volumes, behind strict headers."""

from pathlib import Path

import streamlit as st

from app import api, frontend, logs, theme
from app.access_middleware import build_middleware
from medssl.review.access.reviewers import ReviewConfig

logs.redact_logs()
config = ReviewConfig.from_environment()
app = st.App(
    Path(__file__).with_name("script") / "entry.py",
    routes=[*api.build_routes(config), *frontend.build_routes()],
    middleware=build_middleware(config),
    on_script_error=theme.show_error,
)

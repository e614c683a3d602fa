"""The server: Streamlit's pages beside our own signed route for volumes, behind strict headers."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.api import routes
from app.headers import SecurityHeaders
from medssl.review.access import Access

access = Access.from_environment()
app = st.App(
    Path(__file__).with_name("main.py"),
    routes=routes(access),
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts)),
        Middleware(SecurityHeaders),
    ],
)

"""Adds security headers to every response of the server."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Streamlit's page runs one inline script, which SCRIPTS stands for, and loads components from blobs. Its libraries add
# style elements, but no style attributes.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' blob: SCRIPTS",
        "style-src 'self' 'unsafe-inline'",
        "style-src-attr 'none'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
}


class SecurityHeaders:
    """ASGI middleware that adds `HEADERS` and the content security policy to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and adds the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS | {"Content-Security-Policy": build_policy()})
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def read_page() -> str:
    """Returns Streamlit's own HTML page."""
    return (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")


@cache
def build_policy() -> str:
    """Returns the content security policy; of inline scripts, it allows only those of Streamlit's own page."""
    digests = (hashlib.sha256(script.encode()).digest() for script in INLINE_SCRIPT.findall(read_page()))
    return POLICY.replace("SCRIPTS", " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests))

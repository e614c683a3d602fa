"""Rejects requests from pages of other sites and requests that bypass the sign-in proxy."""

from urllib.parse import urlparse

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.headers import SecurityHeaders
from medssl.review.access.reviewers import SECRET_HEADER, ReviewConfig, is_from_proxy


def build_middleware(config: ReviewConfig) -> list[Middleware]:
    """Returns the middleware that every request passes, outermost first."""
    return [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(config.hosts), www_redirect=False),
        Middleware(AccessMiddleware, config=config),
    ]


class AccessMiddleware:
    """Rejects forbidden requests before Streamlit sees them.

    Streamlit's own check of the origin would ask outside services for the address of this machine.
    """

    def __init__(self, app: ASGIApp, config: ReviewConfig) -> None:
        self.app = app
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with status 403."""
        if scope["type"] == "lifespan" or self._is_allowed(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not allowed", 403)(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and urlparse(origin).hostname not in self.config.hosts:
            return False
        if self.config.mode != "proxy":
            return True
        names = (SECRET_HEADER, self.config.user_header)
        has_no_duplicates = all(len(headers.getlist(name)) <= 1 for name in names)
        return has_no_duplicates and is_from_proxy(self.config, headers)

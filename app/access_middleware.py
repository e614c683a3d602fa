"""Rejects requests from pages of other sites and requests that bypass the sign-in proxy."""

from urllib.parse import urlparse

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.headers import SecurityHeaders
from medssl.review.access.reviewers import SECRET_HEADER, ReviewConfig, is_from_proxy
from medssl.review.access.signin import is_loopback

DEFAULT_PORTS = {"http": 80, "https": 443}
OPERATOR_PATHS = ("/_stcore/metrics",)  # open without a sign-in in Streamlit; the proxy may still read them


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
        if scope["type"] == "lifespan" or self._is_allowed(scope["path"], Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not allowed", 403)(scope, receive, send)

    def _is_allowed(self, path: str, headers: Headers) -> bool:
        if not self._is_own_origin(headers):
            return False
        if self.config.mode != "proxy":
            return path.rstrip("/") not in OPERATOR_PATHS
        names = (SECRET_HEADER, self.config.user_header)
        has_no_duplicates = all(len(headers.getlist(name)) <= 1 for name in names)
        return has_no_duplicates and is_from_proxy(self.config, headers)

    def _is_own_origin(self, headers: Headers) -> bool:
        """Whether a request comes from a page of this app, and not from a page of another server on this machine.

        The origin must have the host and the port of the request. Behind a proxy that does not pass the host on, it
        must be a host of the configuration other than this machine, at the usual port.
        """
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            parts = urlparse(origin)
            port = parts.port or DEFAULT_PORTS.get(parts.scheme)
            host = urlparse(f"{parts.scheme}://{headers.get('host', '')}")
            if (parts.hostname, port) == (host.hostname, host.port or DEFAULT_PORTS.get(parts.scheme)):
                return parts.hostname in self.config.hosts
        except ValueError:  # a port that is no number
            return False
        is_public = parts.hostname in self.config.hosts and not is_loopback(parts.hostname or "")
        return is_public and port == DEFAULT_PORTS.get(parts.scheme)

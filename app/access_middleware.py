"""Gate: nobody reaches the app from another site's page, or past the proxy that signs people in."""

from urllib.parse import urlparse

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.headers import SecurityHeaders
from medssl.review.access.reviewers import SECRET_HEADER, Access, by_proxy


def middleware(access: Access) -> list[Middleware]:
    """What every request passes, outermost first."""
    return [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts), www_redirect=False),
        Middleware(Gate, access=access),
    ]


class Gate:
    """Refuses what is not for us before Streamlit sees it, which would ask outside services for our own address."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with 403."""
        if scope["type"] == "lifespan" or self._ours(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not allowed", 403)(scope, receive, send)

    def _ours(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and urlparse(origin).hostname not in self.access.hosts:
            return False
        if self.access.mode != "proxy":
            return True
        once = all(len(headers.getlist(name)) <= 1 for name in (SECRET_HEADER, self.access.user_header))
        return once and by_proxy(self.access, headers)

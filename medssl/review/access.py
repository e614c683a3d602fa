"""Who is reading and what they may do: the review app's settings, and a reviewer from them and a request."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from medssl.errors import BadInput
from medssl.review.event import Role
from medssl.settings import Settings

VARIABLE = "MEDSSL_REVIEW"
MAY: dict[str, tuple[Role, ...]] = {"compare": ("senior", "admin")}


class Access(Settings):
    """What the app was started with. It travels to the server in one environment variable, never in a URL.

    `local`: one trusted machine, everyone at it is `reviewer`. `proxy`: a proxy in front signs people in and sends
    the user's name with a shared secret. `oidc`: Streamlit's own sign-in, set up in its secrets file.
    """

    predictions: str
    store: str
    mode: Literal["local", "proxy", "oidc"] = "local"
    reviewer: str = "reviewer"
    role: Role = "reader"
    roles: dict[str, Role] = Field(default={})
    key: str = Field(min_length=32, description="signs the links to volumes; a new one for each start")
    proxy_secret: str = ""
    user_header: str = "X-Forwarded-User"
    secret_header: str = "X-Proxy-Secret"
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    idle_minutes: float = Field(20, gt=0)
    tour: bool = False

    def to_environment(self) -> dict[str, str]:
        """The variable that hands these settings to the server."""
        return {VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls) -> "Access":
        """The settings of the server that this is."""
        if VARIABLE not in os.environ:
            raise BadInput("the review app was started by hand; start it with `medssl review PREDICTIONS`")
        return cls.model_validate_json(os.environ[VARIABLE])


@dataclass(frozen=True)
class Reviewer:
    """A person at the app."""

    name: str
    role: Role

    def may(self, what: str) -> bool:
        """Whether this person's role has a right."""
        return self.role in MAY[what]


def identify(access: Access, headers: Mapping[str, str], signed_in: str | None) -> Reviewer | None:
    """Who sends a request; None where they are unknown. A proxy's header counts only beside the shared secret."""
    if access.mode == "local":
        return Reviewer(access.reviewer, access.roles.get(access.reviewer, access.role))
    name = signed_in if access.mode == "oidc" else _from_proxy(access, headers)
    return Reviewer(name, access.roles[name]) if name and name in access.roles else None


def _from_proxy(access: Access, headers: Mapping[str, str]) -> str | None:
    sent = headers.get(access.secret_header) or ""
    known = bool(access.proxy_secret) and hmac.compare_digest(sent.encode(), access.proxy_secret.encode())
    return headers.get(access.user_header) if known else None

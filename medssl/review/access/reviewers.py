"""Who is reading and what they may do: the review app's settings, and a reviewer from them and a request."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field

from medssl.errors import BadInput
from medssl.review.event import Role
from medssl.settings import Settings

VARIABLE = "MEDSSL_REVIEW"
SECRET_HEADER = "X-Proxy-Secret"
# What not every role may. An admin runs the review, but is no clinician: nothing becomes VERIFIED in their name.
MAY: dict[str, tuple[Role, ...]] = {
    "sign": ("reader", "senior"),
    "compare": ("senior", "admin"),
    "deliver": ("senior", "admin"),
}


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
    scans: str = ""
    rival: str = ""
    key: str = Field(min_length=32, description="signs the links to volumes; a new one for each start")
    proxy_secret: str = ""
    user_header: str = "X-Forwarded-User"
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
        """Whether this person's role has a right; what is kept from no role, everyone may."""
        return self.role in MAY.get(what, get_args(Role))


def identify(access: Access, headers: Mapping[str, str], claims: Mapping[str, Any]) -> Reviewer | None:
    """Who sends a request; None where they are unknown.

    A proxy's header counts only beside the shared secret; of an identity provider's claims, the verified e-mail
    address. Both are compared with the roles in small letters.
    """
    if access.mode == "local":
        return Reviewer(access.reviewer, access.role)
    name = (account(claims) if access.mode == "oidc" else _from_proxy(access, headers)).strip().lower()
    return Reviewer(name, access.roles[name]) if name in access.roles else None


def account(claims: Mapping[str, Any]) -> str:
    """The e-mail address of who signed in; empty where nobody did, or where the provider could not confirm it."""
    confirmed = claims.get("email_verified", True) in (True, "true")
    return str(claims.get("email") or "") if claims.get("is_logged_in") and confirmed else ""


def by_proxy(access: Access, headers: Mapping[str, str]) -> bool:
    """Whether a request came through the proxy: it carries the secret that only the proxy and the app know."""
    sent = headers.get(SECRET_HEADER) or ""
    return bool(access.proxy_secret) and hmac.compare_digest(sent.encode(), access.proxy_secret.encode())


def _from_proxy(access: Access, headers: Mapping[str, str]) -> str:
    return headers.get(access.user_header) or "" if by_proxy(access, headers) else ""

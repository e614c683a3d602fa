"""Defines the configuration of the review app and identifies the reviewer of a request."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import Field

from medssl.errors import BadInput
from medssl.review.event import Role
from medssl.settings import Settings

ENVIRONMENT_VARIABLE = "MEDSSL_REVIEW"
SECRET_HEADER = "X-Proxy-Secret"  # noqa: S105
# The roles that may perform a restricted action; any other action is open to every role. An admin runs the review but
# is not a clinician and does not sign.
PERMISSIONS: dict[str, tuple[Role, ...]] = {
    "sign": ("reader", "senior"),
    "compare": ("senior", "admin"),
    "adjudicate": ("senior",),
    "deliver": ("senior", "admin"),
}


class ReviewConfig(Settings):
    """The configuration of the review app. It reaches the server in one environment variable, never in a URL."""

    predictions: str = Field(description="path of the predictions folder to review")
    audit_db: str = Field(description="path of the SQLite file, or URL of the database, that stores all verdicts")
    mode: Literal["local", "proxy", "oidc"] = Field(
        "local",
        description="how readers sign in: local (no sign-in, one trusted machine), proxy (a reverse proxy signs "
        "readers in and sends their name with a shared secret) or oidc (sign-in with OpenID Connect)",
    )
    reviewer: str = Field("reviewer", description="login of the only reader in local mode")
    role: Role = Field("reader", description="role of the only reader in local mode")
    roles: dict[str, Role] = Field(
        default={}, description="role of each login or verified e-mail address, in lower case, in proxy and oidc mode"
    )
    dicom: str = Field("", description="path of the DICOM files of the scans, for DICOM export; empty exports no DICOM")
    dicomweb: str = Field("", description="address of the DICOMweb archive that stores SEG and SR; empty for none")
    nninteractive: str = Field(
        "", description="address of an nnInteractive server that makes the proposals; empty uses our own engine"
    )
    comparison: str = Field(
        "", description="path of the predictions of the same cases by another model; empty shows no comparison"
    )
    manifest: str = Field("", description="path of a manifest.csv with the site, sex and age of cases; empty for none")
    key: str = Field(min_length=32, description="secret key that signs the links to images; new at each start")
    proxy_secret: str = Field("", description="secret that the proxy sends with each request; required in proxy mode")
    user_header: str = Field("X-Forwarded-User", description="HTTP header in which the proxy sends the login")
    hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost"), description="host names under which browsers may reach the app"
    )
    idle_minutes: float = Field(
        20, gt=0, description="minutes without activity after which a reader must sign in again"
    )
    sign_in_minutes: float = Field(
        60, gt=0, description="minutes after a sign-in with OIDC during which a reader can sign cases without a new one"
    )
    guided_tour: bool = Field(False, description="whether the pages show the steps of a guided tour")

    def to_environment(self) -> dict[str, str]:
        """Returns the environment variable that passes this configuration to the server."""
        return {ENVIRONMENT_VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls) -> "ReviewConfig":
        """Returns the configuration of this server; raises BadInput if it was not started by `medssl review`."""
        if ENVIRONMENT_VARIABLE not in os.environ:
            raise BadInput("the review app has no configuration; start it with `medssl review PREDICTIONS`")
        return cls.model_validate_json(os.environ[ENVIRONMENT_VARIABLE])


@dataclass(frozen=True)
class Reviewer:
    """A person who uses the review app.

    Args:
        name: The login, or the verified e-mail address.
        role: The role.
        proof: How the person proved who they are, in words; it is stored with each signature.
        signs_until: The time in s since the epoch until which the sign-in suffices for a signature; None if there is no
            sign-in that the app could ask for again.
    """

    name: str
    role: Role
    proof: str = field(default="none: the name was given to the command", compare=False)
    signs_until: float | None = field(default=None, compare=False)

    def has_permission(self, action: str) -> bool:
        """Whether the role of this person permits an action; an action that is not restricted is always permitted."""
        return self.role in PERMISSIONS.get(action, get_args(Role))


def identify(config: ReviewConfig, headers: Mapping[str, str], claims: Mapping[str, Any]) -> Reviewer | None:
    """Returns the person who sends a request; None if the person is unknown.

    Args:
        config: The configuration of the app.
        headers: The headers of the request. The user header of a proxy counts only together with the shared secret.
        claims: The claims of the identity provider. Only a verified e-mail address counts.
    """
    if config.mode == "local":
        return Reviewer(config.reviewer, config.role, "none: local mode has no sign-in")
    name = (extract_email(claims) if config.mode == "oidc" else _read_proxy_user(config, headers)).strip().lower()
    if name not in config.roles:
        return None
    if config.mode == "proxy":
        return Reviewer(name, config.roles[name], f"named by the proxy in {config.user_header}")
    signed_in = float(claims.get("iat") or 0)
    proof = f"signed in at {datetime.fromtimestamp(signed_in, UTC).isoformat(timespec='seconds')} (OIDC)"
    return Reviewer(name, config.roles[name], proof, signed_in + config.sign_in_minutes * 60)


def extract_email(claims: Mapping[str, Any]) -> str:
    """Returns the verified e-mail address of a signed-in user; empty if there is none."""
    is_verified = claims.get("email_verified", True) in (True, "true")
    return str(claims.get("email") or "") if claims.get("is_logged_in") and is_verified else ""


def is_from_proxy(config: ReviewConfig, headers: Mapping[str, str]) -> bool:
    """Whether a request came through the proxy, that is, carries the secret that only the proxy and the app know."""
    secret = headers.get(SECRET_HEADER) or ""
    return bool(config.proxy_secret) and hmac.compare_digest(secret.encode(), config.proxy_secret.encode())


def _read_proxy_user(config: ReviewConfig, headers: Mapping[str, str]) -> str:
    return headers.get(config.user_header) or "" if is_from_proxy(config, headers) else ""

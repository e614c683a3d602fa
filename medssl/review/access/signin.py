"""Reads and checks the files for sign-in: the roles, the proxy secret and Streamlit's secrets file for OIDC."""

import ipaddress
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml
from pydantic import TypeAdapter, ValidationError

from medssl.errors import BadInput
from medssl.review.event import Role

MIN_SECRET_LENGTH = 16
REQUIRED_OIDC_KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


def read_roles(path: Path) -> dict[str, Role]:
    """Returns the role of each login, in lower case, from a YAML file with lines `login: reader|senior|admin`."""
    try:
        entries = TypeAdapter(dict[str, Role]).validate_python(yaml.safe_load(_read_text(path)))
    except (yaml.YAMLError, ValidationError):
        raise BadInput(f"{path}: not lines of `login: role`; the roles are reader, senior and admin") from None
    roles = {login.strip().lower(): role for login, role in entries.items()}
    if len(roles) < max(1, len(entries)):
        raise BadInput(f"{path}: empty, or a login occurs twice; give each person one line `login: role`")
    return roles


def read_proxy_secret(path: Path) -> str:
    """Returns the secret that the proxy and the app share; raises BadInput if it is too short or readable by others."""
    _require_private(path)
    if len(secret := _read_text(path).strip()) < MIN_SECRET_LENGTH:
        raise BadInput(
            f"{path}: a secret of {len(secret)} characters can be guessed, at least {MIN_SECRET_LENGTH} are needed; "
            f"`openssl rand -hex 32 > {path}`"
        )
    return secret


def read_oidc_hosts(path: Path) -> tuple[str, ...]:
    """Checks Streamlit's secrets file for `st.login` and returns the host under which browsers reach the app."""
    _require_private(path)
    try:
        auth: Mapping[str, Any] = tomllib.loads(_read_text(path)).get("auth", {})
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not TOML ({error}); see docs/how-to/sign-in.md") from None
    if missing := [name for name in REQUIRED_OIDC_KEYS if not isinstance(auth.get(name), str) or not auth[name]]:
        raise BadInput(f"{path}: [auth] lacks {', '.join(missing)}; see docs/how-to/sign-in.md")
    if len(auth["cookie_secret"]) < 2 * MIN_SECRET_LENGTH:
        raise BadInput(f"{path}: cookie_secret can be guessed; use 32 random characters (`openssl rand -hex 32`)")
    if not auth["redirect_uri"].endswith("/oauth2callback"):
        raise BadInput(f"{path}: redirect_uri must be the address of the app, ending in /oauth2callback")
    for name in ("redirect_uri", "server_metadata_url"):
        if urlparse(auth[name]).scheme != "https" and not is_loopback(urlparse(auth[name]).hostname or ""):
            raise BadInput(f"{path}: {name} must be https; http can be intercepted")
    if not find_spec("authlib"):
        raise BadInput("sign-in with OIDC needs authlib, which is not installed; pip install 'medssl[app]'")
    return (urlparse(auth["redirect_uri"]).hostname or "",)


def is_loopback(host: str) -> bool:
    """Whether a host is the loopback address of this machine, which no other machine can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_private(path: Path) -> None:
    if path.is_file() and path.stat().st_mode & 0o077:
        raise BadInput(f"{path}: other users of this machine can read this secret; `chmod 600 {path}`")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from None

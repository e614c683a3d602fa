"""The files that let people sign in: who has which role, the secret of a proxy, Streamlit's file for OIDC."""

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

LEAST_SECRET = 16
NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


def roles(path: Path) -> dict[str, Role]:
    """Everyone who may read, from a YAML file with a line `name: reader|senior|admin` each; names in small letters."""
    try:
        told = TypeAdapter(dict[str, Role]).validate_python(yaml.safe_load(_text(path)))
    except (yaml.YAMLError, ValidationError):
        raise BadInput(f"{path}: not lines of `name: role`; the roles are reader, senior and admin") from None
    if len(known := {name.strip().lower(): role for name, role in told.items()}) < max(1, len(told)):
        raise BadInput(f"{path}: names nobody, or somebody twice; give everyone one line `name: role`")
    return known


def proxy_secret(path: Path) -> str:
    """What the proxy and the app alone know."""
    _private(path)
    if len(secret := _text(path).strip()) < LEAST_SECRET:
        raise BadInput(f"{path}: a secret of {len(secret)} characters can be guessed; `openssl rand -hex 32 > {path}`")
    return secret


def oidc_hosts(path: Path) -> tuple[str, ...]:
    """Checks Streamlit's secrets file for `st.login`, and gives the name under which browsers reach the app."""
    _private(path)
    try:
        auth: Mapping[str, Any] = tomllib.loads(_text(path)).get("auth", {})
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not TOML ({error}); see `Review` in docs/guide.md") from None
    if lacking := [name for name in NEEDED if not isinstance(auth.get(name), str) or not auth[name]]:
        raise BadInput(f"{path}: [auth] lacks {', '.join(lacking)}; see `Review` in docs/guide.md")
    if len(auth["cookie_secret"]) < 2 * LEAST_SECRET:
        raise BadInput(f"{path}: cookie_secret can be guessed; take 32 random characters (`openssl rand -hex 32`)")
    if not auth["redirect_uri"].endswith("/oauth2callback"):
        raise BadInput(f"{path}: redirect_uri must be the app's own address, ending in /oauth2callback")
    for name in ("redirect_uri", "server_metadata_url"):
        if urlparse(auth[name]).scheme != "https" and not loopback(urlparse(auth[name]).hostname or ""):
            raise BadInput(f"{path}: {name} must be https; over http anyone on the way could sign in")
    if not find_spec("authlib"):
        raise BadInput("signing in needs authlib, which is not installed; pip install 'medssl[app]'")
    return (urlparse(auth["redirect_uri"]).hostname or "",)


def loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _private(path: Path) -> None:
    if path.is_file() and path.stat().st_mode & 0o077:
        raise BadInput(f"{path}: others on this machine can read this secret; `chmod 600 {path}`")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from None

"""Knows which sign-ins are in use, so that the links on a page end with the sign-in of its reader."""

import hashlib
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from medssl.review.access.reviewers import ReviewConfig, Reviewer, identify


def name_sign_in(config: ReviewConfig, reviewer: Reviewer, claims: Mapping[str, Any]) -> str:
    """Returns an identifier of a sign-in without a name; empty in local mode, which has no sign-in."""
    identity = f"{config.key} {reviewer.name} {reviewer.role} {claims.get('iat')}"
    return "" if config.mode == "local" else hashlib.sha256(identity.encode()).hexdigest()[:16]


def find_last_use(sign_in: str) -> float | None:
    """Returns the time of the last use of a sign-in on any page; None before the first and after it ended."""
    return _get_last_use().get(sign_in)


def mark_use(sign_in: str) -> None:
    """Records that a sign-in is used now."""
    _get_last_use()[sign_in] = time.time()


def end(sign_in: str) -> None:
    """Ends a sign-in and all links that were made for it."""
    _get_last_use().pop(sign_in, None)


def is_in_use(config: ReviewConfig, sign_in: str, headers: Mapping[str, str]) -> bool:
    """Whether a link of a sign-in may be served.

    The sign-in has not ended and was used within the idle time. Behind a proxy, the request must come from the same
    person, who still has the same role.
    """
    if config.mode == "local":
        return True
    last_use = find_last_use(sign_in)
    if last_use is None or time.time() - last_use > config.idle_minutes * 60:
        return False
    reviewer = identify(config, headers, {}) if config.mode == "proxy" else None
    return config.mode == "oidc" or (reviewer is not None and name_sign_in(config, reviewer, {}) == sign_in)


@cache
def _get_last_use() -> dict[str, float]:
    """Returns the time of the last use of each sign-in; empty after a restart of the server."""
    return {}

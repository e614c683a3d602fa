"""Creates and checks signed links, each of which serves one file of one case until it expires."""

import hmac
import re
from dataclasses import dataclass
from typing import Literal, get_args

ImageKind = Literal["image", "labels", "findings", "probability", "uncertainty", "comparison", "sequence"]
LinkKind = Literal[ImageKind, "export", "assist"]
TOKEN_PATTERN = re.compile(
    rf"(\d+)\.({'|'.join(get_args(LinkKind))})\.(\d+)\.(\d+)\.([0-9a-f]{{16}}|)\.([0-9a-f]{{64}})"
)


@dataclass(frozen=True)
class Link:
    """A link to one file of a case.

    Args:
        number: The position of the case in the index, from 1; the identifier of the case stays out of the address.
        kind: The file.
        event: The event up to which the file includes the strokes, the sign-off that is exported, or the number of the
            sequence; 0 if none.
        expires: The time in s since the epoch at which the link expires.
        sign_in: The sign-in that the link was made for, 16 hexadecimal digits; empty without a sign-in.
    """

    number: int
    kind: LinkKind
    event: int
    expires: int
    sign_in: str = ""

    def sign(self, key: str) -> str:
        """Returns the token of the link, its part of the address, signed with `key`."""
        payload = f"{self.number}.{self.kind}.{self.event}.{self.expires}.{self.sign_in}"
        return f"{payload}.{_compute_mac(key, payload)}"


def parse_token(token: str, key: str, now: float) -> Link | None:
    """Returns the link of a token; None if the token is malformed, expired or not signed with `key`."""
    if not (match := TOKEN_PATTERN.fullmatch(token)):
        return None
    number, kind, event, expires, sign_in, mac = match.groups()
    if not hmac.compare_digest(mac, _compute_mac(key, token.rpartition(".")[0])) or int(expires) <= now:
        return None
    return Link(int(number), next(k for k in get_args(LinkKind) if k == kind), int(event), int(expires), sign_in)


def _compute_mac(key: str, payload: str) -> str:
    return hmac.new(key.encode(), f"/api/volume/{payload}".encode(), "sha256").hexdigest()

"""Signed links: an address that serves one file of one case until it expires, and that nobody can make up."""

import hmac
import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["image", "labels", "probability", "uncertainty", "rival"]
What = Literal[Kind, "delivery"]
FORM = re.compile(rf"(\d+)\.({'|'.join(get_args(What))})\.(\d+)\.(\d+)\.([0-9a-f]{{64}})")


@dataclass(frozen=True)
class Link:
    """The `number`-th case (its name stays out of the address), which of its files, as of which event, until when."""

    number: int
    kind: What
    event: int
    expires: int

    def token(self, key: str) -> str:
        """The part of the address that says all this, signed."""
        said = f"{self.number}.{self.kind}.{self.event}.{self.expires}"
        return f"{said}.{_mac(key, said)}"


def read(token: str, key: str, now: float) -> Link | None:
    """The link of a token; None where it is expired, changed, or not one of ours."""
    if not (parts := FORM.fullmatch(token)):
        return None
    number, kind, event, expires, mac = parts.groups()
    if not hmac.compare_digest(mac, _mac(key, token.rpartition(".")[0])) or int(expires) <= now:
        return None
    return Link(int(number), next(k for k in get_args(What) if k == kind), int(event), int(expires))


def _mac(key: str, said: str) -> str:
    return hmac.new(key.encode(), f"/api/volume/{said}".encode(), "sha256").hexdigest()

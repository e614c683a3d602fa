"""Parses addresses of DICOM nodes, such as dimse://ARCHIVE@host:11112."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from medssl.errors import BadInput, Message

PREFIX = "dimse://"
AE_TITLE = re.compile(r"[^\\\x00-\x1f\x7f]{1,16}")  # value representation AE, DICOM PS3.5 section 6.2


@dataclass(frozen=True)
class NodeAddress:
    """A DICOM node.

    Args:
        ae_title: The application entity title.
        host: The host; empty for all addresses of this machine, where a node receives.
        port: The TCP port.
    """

    ae_title: str
    host: str
    port: int


def is_node_address(text: str) -> bool:
    """Returns whether a text is the address of a DICOM node and not a path."""
    return text.lower().startswith(PREFIX)


def parse_node_address(text: str, needs_host: bool) -> NodeAddress:
    """Returns the node of an address.

    Args:
        text: dimse://AET@HOST:PORT.
        needs_host: Whether the host must be given, as for a node that is sent to.

    Raises:
        BadInput: If the title, the host or the port is missing or impossible.
    """
    try:
        parts = urlsplit(text)
        title, host, port = parts.username or "", parts.hostname or "", parts.port
    except ValueError:
        title, host, port = "", "", None
    is_complete = AE_TITLE.fullmatch(title) and title.strip() and port and (host or not needs_host)
    if not is_node_address(text) or not is_complete or parts.password or parts.path.strip("/"):
        form = "dimse://AET@HOST:PORT" if needs_host else "dimse://AET@:PORT"
        raise BadInput(Message(
            "{text}: not the address of a DICOM node; write {form}, with a title of at most 16 characters",
            text=text, form=form,
        ))  # fmt: skip
    return NodeAddress(title, host, port or 0)

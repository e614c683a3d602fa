"""The places that the documents of a study are sent to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import BadInput
from medssl.io.dicomweb.address import is_address, parse_address
from medssl.io.dicomweb.service import connect
from medssl.io.dicomweb.store import store_files
from medssl.io.dimse.address import parse_node_address
from medssl.io.dimse.send import send_files


@dataclass(frozen=True)
class Destination:
    """A place that stores DICOM files; a file that is sent twice is stored once, since its UID stays the same.

    Args:
        name: Its address.
        send: Sends files; raises BadInput if the place does not store all of them.
    """

    name: str
    send: Callable[[Sequence[Path]], None]


def open_destination(address: str) -> Destination:
    """Returns the destination of an address; nothing is sent yet.

    Args:
        address: dicomweb+https://HOST/PATH, or dimse://AET@HOST:PORT.

    Raises:
        BadInput: If the address is malformed, or has a search.
    """
    if not is_address(address):
        node = parse_node_address(address, needs_host=True)
        return Destination(f"{node.ae_title}@{node.host}:{node.port}", lambda paths: send_files(node, paths))
    place = parse_address(address)
    if place.study_keys or place.series_keys:
        raise BadInput(f"{place.url}: a destination has no search; leave out what follows the question mark")
    service = connect(place.url, pause=lambda _: None)  # the watch waits, and does other studies meanwhile
    return Destination(place.url, lambda paths: store_files(service, paths))

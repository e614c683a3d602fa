"""Opens what is watched: a folder, a DICOM node that receives, or an archive that is searched again and again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import BadInput
from medssl.io.dicomweb.address import is_address, parse_address
from medssl.io.dicomweb.retrieve import find_series, retrieve_all
from medssl.io.dicomweb.service import connect
from medssl.io.dimse.address import is_node_address, parse_node_address
from medssl.io.dimse.receive import receive_files
from medssl.io.dimse.study_inbox import MODALITIES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudySource:
    """A folder of DICOM files, and what brings new ones into it.

    Args:
        folder: The folder.
        name: What is watched.
        refresh: Looks for new files; raises BadInput if the archive is away.
    """

    folder: Path
    name: str
    refresh: Callable[[], None] = lambda: None


@contextmanager
def open_source(address: str, inbox: Path) -> Iterator[StudySource]:
    """Opens what is watched, and closes it at the end of the block.

    Args:
        address: A folder, dimse://AET@:PORT, or dicomweb+https://HOST/PATH?KEY=VALUE.
        inbox: The private folder for files that come over the network.

    Raises:
        BadInput: If the folder does not exist, or the address is malformed or cannot be opened.
    """
    if is_node_address(address):
        node = parse_node_address(address, needs_host=False)
        with receive_files(node, inbox) as port:
            yield StudySource(inbox, f"{node.ae_title} on port {port}")
    elif is_address(address):
        place = parse_address(address)
        if not place.study_keys and not place.series_keys:
            raise BadInput(f"{place.url}: the address has no search; add one, for example ?ModalitiesInStudy=CT")
        service = connect(place.url, pause=lambda _: None)
        inbox.mkdir(parents=True, mode=0o700, exist_ok=True)

        def refresh() -> None:
            if series := find_series(service, place, MODALITIES, may_be_empty=True):
                retrieve_all(service, series, inbox)

        yield StudySource(inbox, place.url, refresh)
    elif not Path(address).is_dir():
        raise BadInput(
            f"{address}: no such folder; create the inbox, or give dimse://AET@:PORT or dicomweb+https://..."
        )
    else:
        yield StudySource(Path(address), address)

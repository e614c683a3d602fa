"""Receives DICOM files by C-STORE into a folder; a sender gets "success" once its file is on the disk."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from medssl.errors import BadInput, Message
from medssl.files import atomic_file
from medssl.io.dimse.address import NodeAddress

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
UID_FORM = re.compile(r"\d[\d.]{0,63}")
PREAMBLE = b"\x00" * 128 + b"DICM"
log = logging.getLogger(__name__)


@contextmanager
def receive_files(node: NodeAddress, folder: Path) -> Iterator[int]:
    """Receives files while the block runs, and gives the port; a file that comes twice is stored once.

    Args:
        node: The title that senders must call, and the port; 0 for any free one.
        folder: The folder, in which each file gets the name of its SOP instance.

    Raises:
        BadInput: If the port cannot be opened.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its log shows names of patients
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    entity = AE(ae_title=node.ae_title)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    for context in StoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, _store, [folder]), (evt.EVT_C_ECHO, lambda _: SUCCESS), (evt.EVT_REJECTED, _report_rejection),
    ]  # fmt: skip
    try:
        server = entity.start_server((node.host, node.port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise BadInput(Message(
            "port {port} cannot be opened ({reason}); choose another, or end the program that uses it",
            port=node.port, reason=error.strerror or str(error),
        )) from None  # fmt: skip
    assert server is not None, "it does not block"
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        entity.shutdown()


def _store(event: Any, folder: Path) -> int:
    """Writes the file of a request and returns the status for its sender."""
    uid = str(event.request.AffectedSOPInstanceUID)
    if not UID_FORM.fullmatch(uid):
        return CANNOT_UNDERSTAND
    try:
        with atomic_file(folder / f"{uid}.dcm", is_private=True) as part, part.open("wb") as file:
            file.write(PREAMBLE)
            write_file_meta_info(file, event.file_meta)
            file.write(event.request.DataSet.getvalue())
    except OSError as error:
        log.warning("a file cannot be received: %s", error.strerror)
        return OUT_OF_RESOURCES
    return SUCCESS


def _report_rejection(event: Any) -> None:
    """Logs that a sender called another title."""
    request = event.assoc.requestor.primitive
    log.warning("a sender was rejected: it calls %r, the title here is %r", request.called_ae_title.strip(),
                event.assoc.ae.ae_title.strip())  # fmt: skip

"""Sends DICOM files to a node by C-STORE."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.association import Association

from medssl.errors import BadInput, Message
from medssl.io.dimse.address import NodeAddress

TITLE = "MEDSSL"
TIMEOUT_S = 30
WARNINGS = range(0xB000, 0xC000)  # the node has stored the file, and says something about it


def send_files(node: NodeAddress, paths: Sequence[Path]) -> None:
    """Sends files; one that the node holds already is replaced or left, as the node decides.

    Args:
        node: The node.
        paths: DICOM files.

    Raises:
        BadInput: If the node is away, rejects the title, or does not store all files.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    datasets = [dcmread(path) for path in paths]
    entity = AE(ae_title=TITLE)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT_S
    for data in datasets:
        entity.add_requested_context(data.SOPClassUID, data.file_meta.TransferSyntaxUID)
    association = entity.associate(node.host, node.port, ae_title=node.ae_title)
    place = f"{node.ae_title}@{node.host}:{node.port}"
    if not association.is_established:
        reason = (
            Message("it does not accept {title}, or not from {own}; check both titles there", title=node.ae_title,
                    own=TITLE)
            if association.is_rejected
            else Message("no answer; check the address and the network")
        )  # fmt: skip
        raise BadInput(Message("{place}: the files cannot be sent: {reason}", place=place, reason=reason))
    try:
        for data in datasets:
            _send_file(association, data, place)
    finally:
        association.release()


def _send_file(association: Association, data: Dataset, place: str) -> None:
    """Sends one file; raises BadInput if it is not stored."""
    try:
        status = association.send_c_store(data).get("Status")
    except (ValueError, RuntimeError) as error:  # no agreement on this kind of file, or the connection is gone
        raise BadInput(Message("{place}: does not accept a file ({error})", place=place, error=error)) from None
    if status != 0 and status not in WARNINGS:
        text = "no answer" if status is None else f"status {status:04X}"
        raise BadInput(Message("{place}: refuses a file ({text}); its log has the reason", place=place, text=text))

"""Stores DICOM files on a DICOMweb service."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread

from medssl.errors import BadInput, Message
from medssl.io.dicomweb.service import Service


def store_files(service: Service, paths: Sequence[Path]) -> None:
    """Stores files; one that the service holds already is replaced or left, as the service decides.

    Args:
        service: The service.
        paths: DICOM files, small enough for the memory together.

    Raises:
        BadInput: If the service fails, or stores fewer files than it was sent.
    """
    datasets = [dcmread(path) for path in paths]
    answer = service.request(lambda client: client.store_instances(datasets))
    failures = [int(item.get("FailureReason", 0)) for item in answer.get("FailedSOPSequence") or []]
    if failures:
        raise BadInput(Message(
            "{url}: stores {count} of {total} files (reason {reason}); ask its administrator whether it accepts this "
            "kind of object, and deliver again",
            url=service.url, count=len(paths) - len(failures), total=len(paths), reason=f"{failures[0]:04X}",
        ))  # fmt: skip

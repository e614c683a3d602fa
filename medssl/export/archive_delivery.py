"""Retrieves the scans of predictions from a DICOMweb archive, and stores the documents of reviewed cases there."""

import io
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from medssl.errors import BadInput
from medssl.io.dicomweb.address import parse_address
from medssl.io.dicomweb.retrieve import FileProgress, find_series, retrieve_all
from medssl.io.dicomweb.service import connect
from medssl.io.dicomweb.store import store_files

MODALITIES = ("CT", "MR", "PT")


def retrieve_scans(address: str, predictions: Path, on_progress: FileProgress = lambda *_: None) -> Path:
    """Retrieves the series of an address into a private folder next to the predictions, and returns the folder.

    Args:
        address: dicomweb+https://HOST/PATH?KEY=VALUE, with the keys of the studies.
        predictions: The predictions folder.
        on_progress: Called with the number of finished files and of all files.

    Raises:
        BadInput: If the service fails or has no such series.
    """
    place = parse_address(address)
    service = connect(place.url)
    folder = predictions.absolute()
    return retrieve_all(
        service, find_series(service, place, MODALITIES), folder.with_name(f"{folder.name}-scans"), on_progress
    )


def send_documents(address: str, paths: Iterable[Path]) -> int:
    """Stores the DICOM files among the paths on the service of an address, and returns how many.

    A document that is sent twice is stored once, also from two exports, unless the reading was changed in between.

    Raises:
        BadInput: If there is no DICOM file, or the service does not store all of them.
    """
    documents = sorted(path for path in paths if path.suffix == ".dcm")
    if not documents:
        raise BadInput("no DICOM SEG or SR was written; the archive stores nothing else, so give the scans")
    store_files(connect(parse_address(address).url), documents)
    return len(documents)


def send_archive(address: str, content: bytes) -> int:
    """Stores the DICOM files in a ZIP file, as `export_archive` returns it, on the service of an address."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(content)) as file:
        file.extractall(folder)
        return send_documents(address, Path(folder).rglob("*"))

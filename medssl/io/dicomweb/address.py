"""Parses addresses of DICOMweb services, such as dicomweb+https://host/dicom-web?PatientID=123."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from medssl.errors import BadInput, Message

PREFIX = "dicomweb+"
STUDY_KEYS = (
    "StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "StudyDescription", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
)  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "ProtocolName")


@dataclass(frozen=True)
class ServiceAddress:
    """A DICOMweb service and the keys of a search in it.

    Args:
        url: The address of the service, without a query.
        study_keys: Keyword and value of the attributes that the studies must have.
        series_keys: Keyword and value of the attributes that their series must have.
    """

    url: str
    study_keys: dict[str, str] = field(default_factory=dict, repr=False)
    series_keys: dict[str, str] = field(default_factory=dict, repr=False)


def is_address(text: str) -> bool:
    """Returns whether a text is the address of a DICOMweb service and not a path."""
    return text.lower().startswith(PREFIX)


def parse_address(text: str) -> ServiceAddress:
    """Returns the service and the keys of an address.

    Args:
        text: dicomweb+http(s)://HOST/PATH, with the keys of a search after a question mark, or without.

    Raises:
        BadInput: If the address is not one of http or https, contains a password, or has a key of no known keyword.
            The message shows neither the password nor the values of the keys.
    """
    try:
        parts = urlsplit(text[len(PREFIX) :] if is_address(text) else text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadInput("the address of the DICOMweb service is malformed; write dicomweb+https://HOST/PATH") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput("the address of a DICOMweb service starts with dicomweb+https://HOST or dicomweb+http://HOST")
    if parts.username is not None or parts.password is not None:
        raise BadInput(Message(
            "{host}: the address holds a user name or password, which others can read in the list of processes; "
            "write it into ~/.netrc", host=host,
        ))  # fmt: skip
    keys = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in keys]
    unknown = [name for name in names if name not in (*STUDY_KEYS, *SERIES_KEYS)]
    if unknown or len(set(names)) < len(names) or not all(value.strip() for _, value in keys):
        raise BadInput(Message(
            "the key {key} of the search is unknown, repeated or empty; known are {names}",
            key=(unknown or [name for name, value in keys if names.count(name) > 1 or not value.strip()])[0],
            names=", ".join((*STUDY_KEYS, *SERIES_KEYS)),
        ))  # fmt: skip
    place = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{place}{f':{port}' if port else ''}{re.sub('/+$', '', parts.path)}"
    return ServiceAddress(
        url,
        {name: value.strip() for name, value in keys if name in STUDY_KEYS},
        {name: value.strip() for name, value in keys if name in SERIES_KEYS},
    )

"""Addresses of DICOMweb services: what is read from them, and what is refused without showing it."""

import pytest

from medssl.errors import BadInput
from medssl.io.dicomweb.address import is_address, parse_address


def test_the_keys_of_studies_and_series_are_told_apart_and_decoded():
    address = parse_address("dicomweb+https://pacs.example:8443/dicom-web/?PatientID=a%20b%26c&Modality=CT")
    assert address.url == "https://pacs.example:8443/dicom-web"
    assert address.study_keys == {"PatientID": "a b&c"}
    assert address.series_keys == {"Modality": "CT"}
    assert "a b" not in repr(address)


@pytest.mark.parametrize(("text", "url"), [
    ("dicomweb+http://[::1]:8042/dicom-web", "http://[::1]:8042/dicom-web"),
    ("DICOMWEB+HTTPS://host", "https://host"),
    ("https://host/a//", "https://host/a"),
])  # fmt: skip
def test_forms_of_one_address(text, url):
    assert parse_address(text).url == url


@pytest.mark.parametrize("text", ["scans", "/data/dicomweb+https", "https://host", "."])
def test_a_path_is_no_address(text):
    assert not is_address(text)


@pytest.mark.parametrize(("text", "words"), [
    ("dicomweb+https://qwertz:secret@host/dicom-web?PatientID=1", "~/.netrc"),
    ("dicomweb+ftp://host", "starts with dicomweb"),
    ("dicomweb+https:///dicom-web", "starts with dicomweb"),
    ("dicomweb+https://host:port/", "malformed"),
    ("dicomweb+https://host?PatientId=qwertz", "PatientId of the search is unknown"),
    ("dicomweb+https://host?PatientID=qwertz&PatientID=secret", "PatientID of the search is unknown, repeated"),
    ("dicomweb+https://host?PatientID=", "repeated or empty"),
])  # fmt: skip
def test_a_refusal_names_the_fault_and_no_private_value(text, words):
    with pytest.raises(BadInput, match=words) as refusal:
        parse_address(text)
    assert "qwertz" not in str(refusal.value) and "secret" not in str(refusal.value)

"""Values of headers that are kept for other files equal those that pydicom reads."""

import warnings
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_dict
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medssl.io import archives
from medssl.io.dicom import header
from tests.helpers.dicom_phantom import make_slices, save

TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\\\r\n\t\f"), max_size=12)


def write_dataset(data, syntax):
    """Returns a data set as the bytes of a file."""
    file = BytesIO()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID, data.file_meta.MediaStorageSOPClassUID = syntax, "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read_plainly(content, keyword):
    """The text of an attribute as pydicom reads it."""
    value = dcmread(BytesIO(content))[keyword].value
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return str(value).strip()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@given(
    text=TEXT,
    numbers=st.lists(st.floats(-1e4, 1e4).map(lambda x: f"{x:.6g}"), min_size=1, max_size=3),
    count=st.integers(0, 65535),
    charset=st.sampled_from(["", "ISO_IR 100", "ISO_IR 144", "ISO_IR 192"]),
)
def test_values_equal_those_of_pydicom(syntax, text, numbers, count, charset):
    data = Dataset()
    if charset:
        data.SpecificCharacterSet = charset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.SeriesDescription = text.encode("latin-1").decode("ascii", "ignore") if charset != "ISO_IR 100" else text
        data.PatientID, data.ImagePositionPatient, data.Rows = "P 1 ", numbers, count
        data.SOPInstanceUID, data.ImageType, data.SliceThickness = "1.2.840.1", ["ORIGINAL", "PRIMARY"], numbers[0]
        content = write_dataset(data, syntax)
        for _ in range(2):
            parsed = header.parse(Path("a.dcm"), BytesIO(content)).data
            for keyword in ("SeriesDescription", "PatientID", "ImagePositionPatient", "Rows", "SOPInstanceUID",
                            "ImageType", "SliceThickness"):  # fmt: skip
                assert header.get_text(parsed, keyword) == read_plainly(content, keyword)


def test_the_same_bytes_in_two_alphabets_are_two_texts():
    texts = set()
    for charset in ("ISO_IR 100", "ISO_IR 144"):
        data = Dataset()
        data.SpecificCharacterSet = charset
        data.SeriesDescription = b"\xd0\xd1\xd2\xd3".decode("latin-1" if charset == "ISO_IR 100" else "iso8859-5")
        parsed = header.parse(Path("a.dcm"), BytesIO(write_dataset(data, ExplicitVRLittleEndian))).data
        texts.add(header.get_text(parsed, "SeriesDescription"))
    assert len(texts) == 2


def test_every_attribute_of_a_file_equals_that_of_pydicom(tmp_path):
    for path in save(make_slices(), tmp_path):
        whole = dcmread(path, stop_before_pixels=True)
        for _ in range(2):
            with archives.open_file(path) as file:
                parsed = header.parse(path, file).data
            for keyword in {element.keyword for element in whole} & set(keyword_dict):
                value = whole[keyword].value
                if isinstance(value, str):
                    assert header.get_text(parsed, keyword) == value.strip()

"""Reads the headers of a series' files in the form in which derived objects copy them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread

from medssl.io import archives
from medssl.io.dicom.reader import Series

# Attributes of type 2, which must be present but may be empty; some archives omit them.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


def read_headers(series: Series) -> list[Dataset]:
    """Returns a copy of each file's header without pixels, in UTF-8, with all attributes of type 2."""
    return [_read_header(path) for path in series.files]


def _read_header(path: Path) -> Dataset:
    """Reads the header of one file and completes it."""
    with archives.open_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the series were issued when it was read
        data = dcmread(file, stop_before_pixels=True, force=True)
        data.decode()
        for keyword in MAY_BE_EMPTY:
            setattr(data, keyword, str(data.get(keyword) or ""))
    if data.PatientSex not in ("M", "F", "O"):
        data.PatientSex = ""
    data.SpecificCharacterSet = "ISO_IR 192"
    return data


@contextmanager
def ignore_highdicom_warnings() -> Iterator[None]:
    """Suppresses the warnings of highdicom, which contain the patient's name and no remedy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def choose_series_number(sources: Sequence[Dataset]) -> int:
    """Returns the number of a derived series, which differs from the number of its source."""
    return 1000 + max(0, int(sources[0].get("SeriesNumber") or 0))

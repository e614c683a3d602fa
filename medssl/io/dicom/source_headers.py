"""Source headers: those of a series' files as derived objects copy them, with everything in place that they need."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread

from medssl.io import archives as archive
from medssl.io.dicom.reader import Series

# Type 2: must be there, may be empty. Archives leave them out all the same.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


def headers(series: Series) -> list[Dataset]:
    """A copy of each file's header, without pixels, in UTF-8, every attribute of type 2 there."""
    return [_header(path) for path in series.files]


def _header(path: Path) -> Dataset:
    with archive.opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about the series was told when it was read
        data = dcmread(file, stop_before_pixels=True, force=True)
        data.decode()
        for keyword in MAY_BE_EMPTY:
            setattr(data, keyword, str(data.get(keyword) or ""))
    if data.PatientSex not in ("M", "F", "O"):
        data.PatientSex = ""
    data.SpecificCharacterSet = "ISO_IR 192"
    return data


@contextmanager
def quiet() -> Iterator[None]:
    """Without highdicom's warnings: they tell the patient's name, and nothing that could be done about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def next_number(sources: Sequence[Dataset]) -> int:
    """A series number that tells a derived series from the one it was derived from."""
    return 1000 + max(0, int(sources[0].get("SeriesNumber") or 0))

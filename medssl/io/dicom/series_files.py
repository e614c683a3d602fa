"""Reads what each DICOM file contributes to a series."""

import re
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import Message
from medssl.io.archives import FileOpener
from medssl.io.dicom.frames import Frame, check_kind, read_frames
from medssl.io.dicom.header import Header, get_text, parse
from medssl.io.rejected import ReadRejected

BURNED_IN = (
    Message("BurnedInAnnotation is YES: text may stand in the pixels"),
    Message("a saved screen: values may be those of a display"),
)

UNITS_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


@dataclass(frozen=True)
class PatientInfo:
    """Facts about the patient and the scan, as far as the header has them; reading a volume needs none.

    Args:
        age_years: The age at the time of the scan.
        sex: "M", "F", "O" or empty.
        scanner: The manufacturer and the model.
        date: The date of the study, YYYYMMDD.
    """

    age_years: float | None = None
    sex: str = ""
    scanner: str = ""
    date: str = ""


@dataclass(frozen=True)
class SeriesFile:
    """What one file contributes to a series: its slices, or the reason why it is rejected.

    Args:
        path: The file.
        series: The SeriesInstanceUID.
        sop_instance: The SOPInstanceUID.
        description: The SeriesDescription.
        patient_info: Facts about the patient and the scan.
        warnings: What should be checked about the file.
        frames: The slices.
        fault: Why the slices are rejected.
    """

    path: Path
    series: str
    sop_instance: str
    description: str
    patient_info: PatientInfo
    warnings: tuple[Message, ...]
    frames: tuple[Frame, ...]
    fault: ReadRejected | None


def read_file(path: Path, opener: FileOpener) -> SeriesFile:
    """Reads what a file contributes to a series.

    Raises:
        ReadRejected: If the file is not DICOM, or holds no slices of CT, MR or PET.
    """
    with opener.open(path) as file:
        header = parse(path, file)
    check_kind(header)
    return _describe_file(header)


def _describe_file(header: Header) -> SeriesFile:
    """Reads the slices of a file; if they are rejected, the reason is kept for its series."""
    path, data = header.path, header.data
    series = get_text(data, "SeriesInstanceUID")
    try:
        sop_instance, description = get_text(data, "SOPInstanceUID"), get_text(data, "SeriesDescription")
        return SeriesFile(
            path,
            series,
            sop_instance,
            description,
            _read_patient_info(header),
            _find_warnings(header),
            read_frames(header),
            None,
        )
    except ReadRejected as fault:
        return SeriesFile(path, series, "", "", PatientInfo(), (), (), fault)


def _read_patient_info(header: Header) -> PatientInfo:
    """Reads the facts about the patient and the scan."""
    data = header.data
    scanner = " ".join(filter(None, (get_text(data, "Manufacturer"), get_text(data, "ManufacturerModelName"))))
    age = re.fullmatch(r"(\d{3})([DWMY])", get_text(data, "PatientAge"))
    years = int(age[1]) / UNITS_PER_YEAR[age[2]] if age else None
    return PatientInfo(years, get_text(data, "PatientSex"), scanner, get_text(data, "StudyDate"))


def _find_warnings(header: Header) -> tuple[Message, ...]:
    """Returns what should be checked about a file."""
    messages = []
    if get_text(header.data, "BurnedInAnnotation").upper() == "YES":
        messages.append(BURNED_IN[0])
    if get_text(header.data, "PhotometricInterpretation") == "MONOCHROME1":
        messages.append(Message("MONOCHROME1: displayed inverted; the values are unchanged"))
    if get_text(header.data, "LossyImageCompression") == "01":
        messages.append(Message("its pixels went through lossy compression"))
    if "SCREEN SAVE" in get_text(header.data, "ImageType").upper() or get_text(header.data, "ConversionType"):
        messages.append(BURNED_IN[1])
    return tuple(messages)

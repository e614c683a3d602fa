"""Reads what each DICOM file contributes to a series, and remembers it for files that have not changed."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from medssl.errors import Message, restore_message
from medssl.files import write_text
from medssl.io.archives import FileOpener
from medssl.io.dicom.frames import Frame, SeriesKey, check_kind, read_frames
from medssl.io.dicom.header import Header, get_text, parse
from medssl.io.dicom.pixel_data.encoding import PixelEncoding
from medssl.io.dicom.suv import PetQuantity
from medssl.io.rejected import Code, ReadRejected
from medssl.version import __version__

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


def describe_file(header: Header) -> SeriesFile:
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


@dataclass(frozen=True)
class FileRecord:
    """What is remembered of a file; messages are pairs of their text and their public version.

    Args:
        size: The size of the file in bytes.
        modified_ns: When the file was changed.
        series: The SeriesInstanceUID.
        sop_instance: The SOPInstanceUID.
        description: The SeriesDescription.
        patient_info: Facts about the patient and the scan.
        warnings: What should be checked about the file.
        frames: The slices.
        fault: The code and the reason of slices that are rejected.
        is_rejected: Whether the file itself is rejected, so that it belongs to no series.
    """

    size: int
    modified_ns: int
    series: str = ""
    sop_instance: str = ""
    description: str = ""
    patient_info: PatientInfo = PatientInfo()
    warnings: tuple[tuple[str, str], ...] = ()
    frames: tuple[Frame, ...] = ()
    fault: tuple[Code, str, str] | None = None
    is_rejected: bool = False


class HeaderMemory:
    """Remembers the headers of files by path, size and time of change.

    Files in archives, and files with a modality lookup table, are read each time.
    """

    def __init__(self, records: dict[str, FileRecord] | None = None) -> None:
        self._earlier = records or {}
        self._records: dict[str, FileRecord] = {}

    @classmethod
    def read(cls, path: Path) -> "HeaderMemory":
        """Returns what was written to a file; nothing if it is missing, damaged or of another version."""
        try:
            first, _, content = path.read_bytes().partition(b"\n")
            is_current = first.decode() == _describe_version()
            return cls(_make_adapter().validate_json(content) if is_current else None)
        except (OSError, ValueError):
            return cls()

    def write(self, path: Path, folder: Path) -> None:
        """Writes what is known of all files, for their owner alone.

        Args:
            path: The file to write.
            folder: The folder that was read: files in it that were not met are forgotten.
        """
        prefix = f"{folder}{os.sep}"
        others = {name: record for name, record in self._earlier.items() if not name.startswith(prefix)}
        records = others | self._records
        if records != self._earlier:
            content = _make_adapter().dump_json(records).decode()
            write_text(path, f"{_describe_version()}\n{content}", is_private=True)

    def select(self, paths: Sequence[Path]) -> "HeaderMemory":
        """Returns what this run knows of some files, which another process can be given."""
        names = [str(path) for path in paths]
        return HeaderMemory({name: self._records[name] for name in names if name in self._records})

    def describe(self, path: Path, opener: FileOpener) -> SeriesFile:
        """Returns what a file contributes to a series.

        Raises:
            ReadRejected: If the file is not DICOM, or holds no slices of CT, MR or PET.
        """
        try:
            state = path.stat()
        except OSError:  # a member of an archive, or a file that opening it explains
            return _read_file(path, opener)
        name = str(path)
        record = self._earlier.get(name)
        if record is None or (record.size, record.modified_ns) != (state.st_size, state.st_mtime_ns):
            try:
                described: SeriesFile | ReadRejected = _read_file(path, opener)
            except ReadRejected as error:
                described = error
            record = _make_record(described, state.st_size, state.st_mtime_ns)
            if _is_memorable(name, described):
                self._records[name] = record
            if isinstance(described, ReadRejected):
                raise described
            return described
        self._records[name] = record
        return _restore_file(path, record)


def _read_file(path: Path, opener: FileOpener) -> SeriesFile:
    with opener.open(path) as file:
        header = parse(path, file)
    check_kind(header)
    return describe_file(header)


def _is_memorable(name: str, described: SeriesFile | ReadRejected) -> bool:
    """Whether a record holds all of a file: JSON has no bytes, and no names that are not UTF-8."""
    if isinstance(described, ReadRejected):
        return described.code in ("not-dicom", "not-an-image", "annotation", "localizer") and name.isprintable()
    return name.isprintable() and not any(frame.lut for frame in described.frames)


def _make_record(described: SeriesFile | ReadRejected, size: int, modified_ns: int) -> FileRecord:
    if isinstance(described, ReadRejected):
        return FileRecord(size, modified_ns, fault=_split_fault(described), is_rejected=True)
    fault = _split_fault(described.fault) if described.fault else None
    messages = tuple((str(message), message.public) for message in described.warnings)
    return FileRecord(
        size, modified_ns, described.series, described.sop_instance, described.description, described.patient_info,
        messages, described.frames, fault,
    )  # fmt: skip


def _split_fault(fault: ReadRejected) -> tuple[Code, str, str]:
    return fault.code, str(fault.message), fault.message.public


def _restore_file(path: Path, record: FileRecord) -> SeriesFile:
    """Returns what was remembered of a file, or raises the error that it was rejected with."""
    fault = None
    if record.fault is not None:
        code, text, public = record.fault
        fault = ReadRejected(code, restore_message(text, public))
    if fault is not None and record.is_rejected:
        raise fault
    warnings = tuple(restore_message(text, public) for text, public in record.warnings)
    return SeriesFile(
        path, record.series, record.sop_instance, record.description, record.patient_info, warnings, record.frames,
        fault,
    )  # fmt: skip


def _make_adapter() -> Any:
    return TypeAdapter(dict[str, FileRecord])


def _describe_version() -> str:
    """Returns a text that changes with the version and with the fields that are remembered."""
    kinds: Sequence[Any] = (FileRecord, PatientInfo, Frame, SeriesKey, PixelEncoding, PetQuantity)
    names = [[field.name for field in fields(kind)] for kind in kinds]
    return f"{__version__} {hashlib.sha256(json.dumps([names, get_args(Code)]).encode()).hexdigest()[:16]}"

"""The memory of DICOM headers: what files contribute to series, by path, size and time of change."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medssl.errors import restore_message
from medssl.files import atomic_file
from medssl.io.archives import FileOpener
from medssl.io.dicom.header_memory.packed_records import FileRecord, PackedRecords, pack, unpack
from medssl.io.dicom.series_files import SeriesFile, read_file
from medssl.io.rejected import Code, ReadRejected

MEMORABLE = ("not-dicom", "not-an-image", "annotation", "localizer")  # codes of files that need not be read again


class HeaderMemory:
    """Remembers the headers of files by path, size and time of change.

    Files in archives, and files with a modality lookup table, are read each time.
    """

    def __init__(self, earlier: PackedRecords | None = None, given: Mapping[str, FileRecord] | None = None) -> None:
        self._earlier, self._given = earlier or PackedRecords(), given or {}
        self._records: dict[str, FileRecord] = {}  # of files that were met in this run
        self._has_new = False

    @classmethod
    def read(cls, path: Path) -> "HeaderMemory":
        """Returns what was written to a file; nothing if it is missing, damaged or of another version."""
        try:
            return cls(unpack(path.read_bytes()))
        except (OSError, ValueError):
            return cls()

    def write(self, path: Path, folder: Path) -> None:
        """Writes what is known of all files, for their owner alone.

        Args:
            path: The file to write.
            folder: The folder that was read: files in it that were not met are forgotten.
        """
        prefix = f"{folder}{os.sep}"
        unmet = [name for name in self._earlier.names if name not in self._records]
        others = [name for name in unmet if not name.startswith(prefix)]
        if self._has_new or len(others) < len(unmet):
            records = {name: record for name in others if (record := self._earlier.find(Path(name)))}
            with atomic_file(path, is_private=True) as part:
                part.write_bytes(pack(records | self._records))

    def select(self, paths: Sequence[Path]) -> "HeaderMemory":
        """Returns what this run knows of some files, which another process can be given."""
        names = [str(path) for path in paths]
        return HeaderMemory(given={name: self._records[name] for name in names if name in self._records})

    def has(self, path: Path) -> bool:
        """Whether a file is known and has not changed since it was read."""
        return self._recall(path) is not None

    def describe(self, path: Path, opener: FileOpener) -> SeriesFile:
        """Returns what a file contributes to a series.

        Raises:
            ReadRejected: If the file is not DICOM, or holds no slices of CT, MR or PET.
        """
        if record := self._recall(path):
            return _restore_file(path, record)
        try:
            state = path.stat()
        except OSError:  # a member of an archive, or a file that opening it explains
            return read_file(path, opener)
        try:
            described: SeriesFile | ReadRejected = read_file(path, opener)
        except ReadRejected as error:
            described = error
        if _is_memorable(str(path), described):
            self._records[str(path)] = _make_record(described, state.st_size, state.st_mtime_ns)
            self._has_new = True
        if isinstance(described, ReadRejected):
            raise described
        return described

    def _recall(self, path: Path) -> FileRecord | None:
        """Returns what is known of a file that has not changed; each file is looked at once."""
        name = str(path)
        if name in self._records:
            return self._records[name]
        record = self._given.get(name) or self._earlier.find(path)
        try:
            if record is None or not record.is_of(path.stat()):
                return None
        except OSError:  # opening it explains
            return None
        self._records[name] = record
        return record


def _is_memorable(name: str, described: SeriesFile | ReadRejected) -> bool:
    """Whether a record holds all of a file: JSON has no bytes, and no names that are not UTF-8."""
    if isinstance(described, ReadRejected):
        return described.code in MEMORABLE and name.isprintable()
    return name.isprintable() and not any(frame.lut for frame in described.frames)


def _make_record(described: SeriesFile | ReadRejected, size: int, modified_ns: int) -> FileRecord:
    if isinstance(described, ReadRejected):
        return FileRecord(size, modified_ns, fault=_split_fault(described), is_rejected=True)
    fault = _split_fault(described.fault) if described.fault else None
    messages = tuple((str(message), message.public) for message in described.warnings)
    return FileRecord(
        size, modified_ns, described.series, described.sop_instance, described.description, described.patient_info,
        messages, fault, frames=described.frames,
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

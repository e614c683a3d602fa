"""Packs what is remembered of many files: every value is stored once, and files refer to it by its number."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import GenericAlias
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from pydantic import create_model

from medssl.io.dicom.frames import Frame, SeriesKey
from medssl.io.dicom.pixel_data.encoding import PixelEncoding
from medssl.io.dicom.private_tags import Tile
from medssl.io.dicom.series_files import PatientInfo
from medssl.io.dicom.suv import PetQuantity
from medssl.io.rejected import Code
from medssl.version import __version__


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
        fault: The code and the reason of slices that are rejected.
        is_rejected: Whether the file itself is rejected, so that it belongs to no series.
        frames: The slices.
    """

    size: int
    modified_ns: int
    series: str = ""
    sop_instance: str = ""
    description: str = ""
    patient_info: PatientInfo = field(default_factory=PatientInfo)
    warnings: tuple[tuple[str, str], ...] = ()
    fault: tuple[Code, str, str] | None = None
    is_rejected: bool = False
    frames: tuple[Frame, ...] = ()

    def is_of(self, state: os.stat_result) -> bool:
        """Whether a file has the size and the time of change that are remembered."""
        return (self.size, self.modified_ns) == (state.st_size, state.st_mtime_ns)


FILE_FIELDS = tuple(f.name for f in fields(FileRecord) if f.name not in ("size", "modified_ns", "frames"))
FRAME_FIELDS = tuple(f.name for f in fields(Frame) if f.name != "path")
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """The values of one field: each once, and for each record its number among them."""

    numbers: list[int]
    values: list[T]


class PackedRecords:
    """The records of files by name; each is unpacked at its access.

    Args:
        names: The files.
        sizes: Their sizes in bytes.
        times: When each was changed, in ns.
        frame_counts: The number of slices of each.
        files: A column for each of `FILE_FIELDS`, with one entry per file.
        frames: A column for each of `FRAME_FIELDS`, with one entry per slice.
    """

    def __init__(
        self, names: Sequence[str] = (), sizes: Sequence[int] = (), times: Sequence[int] = (),
        frame_counts: Sequence[int] = (), files: Sequence[Column] = (), frames: Sequence[Column] = (),
    ) -> None:  # fmt: skip
        self._places = {name: n for n, name in enumerate(names)}
        self._sizes, self._times = sizes, times
        self._ends = [0, *accumulate(frame_counts)]
        self._files, self._frames = files, frames

    @property
    def names(self) -> Collection[str]:
        """The names of the files."""
        return self._places.keys()

    def find(self, path: Path) -> FileRecord | None:
        """Returns the record of a file; None if there is none."""
        n = self._places.get(str(path))
        if n is None:
            return None
        values: list[Any] = [column.values[column.numbers[n]] for column in self._files]
        slices = [
            Frame(path, *[column.values[column.numbers[k]] for column in self._frames])
            for k in range(self._ends[n], self._ends[n + 1])
        ]
        return FileRecord(self._sizes[n], self._times[n], *values, tuple(slices))  # type: ignore[call-arg]


def pack(records: Mapping[str, FileRecord]) -> bytes:
    """Returns records as a line with the version and a hash of the rest, and their columns as JSON."""
    content = _make_model().model_construct(
        names=list(records),
        sizes=[record.size for record in records.values()],
        times=[record.modified_ns for record in records.values()],
        frame_counts=[len(record.frames) for record in records.values()],
        files=_make_columns(list(records.values()), FILE_FIELDS),
        frames=_make_columns([frame for record in records.values() for frame in record.frames], FRAME_FIELDS),
    )
    packed = content.model_dump_json().encode()
    return _make_first_line(packed) + packed


def unpack(packed: bytes) -> PackedRecords:
    """Returns the records in what `pack` made.

    Raises:
        ValueError: It is damaged, or of another version.
    """
    first, _, content = packed.partition(b"\n")
    if _make_first_line(content) != first + b"\n":
        raise ValueError("damaged, or of another version")
    return PackedRecords(**dict(_make_model().model_validate_json(content)))


def _make_columns(records: Sequence[FileRecord] | Sequence[Frame], names: tuple[str, ...]) -> tuple[Column, ...]:
    """Returns a column for each field; the text of a value identifies it, since 0.0 equals -0.0."""
    columns = []
    for name in names:
        values = [getattr(record, name) for record in records]
        keys = [value if value is None or isinstance(value, str) else repr(value) for value in values]
        unique = dict(zip(keys, values, strict=True))
        places = {key: n for n, key in enumerate(unique)}
        columns.append(Column([places[key] for key in keys], list(unique.values())))
    return tuple(columns)


def _make_first_line(content: bytes) -> bytes:
    """Returns a line that changes with the content, the version and the fields that are remembered."""
    kinds: tuple[Any, ...] = (FileRecord, PatientInfo, Frame, SeriesKey, PixelEncoding, Tile, PetQuantity)
    names = [[f.name for f in fields(kind)] for kind in kinds]
    digest = hashlib.sha256(repr([names, get_args(Code)]).encode())
    digest.update(content)
    return f"{__version__} {digest.hexdigest()}\n".encode()


@lru_cache(maxsize=1)
def _make_model() -> Any:
    """Returns the model of the JSON, in which the values of each column have the type of their field."""
    column: Any = Column
    parts: dict[str, Any] = dict.fromkeys(("sizes", "times", "frame_counts"), (list[int], ...))
    for part, kind, names in (("files", FileRecord, FILE_FIELDS), ("frames", Frame, FRAME_FIELDS)):
        hints = get_type_hints(kind)
        columns = [column[hints[name]] for name in names]
        parts[part] = (GenericAlias(tuple, tuple(columns)), ...)
    return create_model("Records", names=(list[str], ...), **parts)

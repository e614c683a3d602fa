"""Parses the attributes of a DICOM file strictly and locates its pixel data."""

import math
import re
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydicom import DataElement, Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medssl.errors import Message, restore_message
from medssl.io.rejected import ReadRejected

MAX_HEADER_BYTES = 256 << 20
MAX_ELEMENT_BYTES = 16 << 20  # longer attributes are skipped; none that is read is as long
MAX_INFLATED_BYTES, FREE_BYTES, BOMB_RATIO = 2 << 30, 64 << 20, 50
PIXEL_DATA, LAST_GROUPS = 0x7FE00010, (0x7FE0, 0xFFFA, 0xFFFC)
UNDEFINED = 0xFFFFFFFF
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# What short values of these kinds must match to follow from their bytes alone: text may hold no other alphabet.
KEPT_VRS = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "FL", "FD"), re.compile(rb"(?s:.{1,64})")),
    **dict.fromkeys(
        ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UI"),
        re.compile(rb"[\x00\x20-\x7e]{1,128}"),
    ),
}
NO_PREAMBLE = re.compile(rb"[\x02\x08]\x00[\x00-\xff]\x00")


@dataclass(frozen=True)
class Header:
    """The attributes of a DICOM file before its pixels, and the position of the pixels in the (inflated) file."""

    path: Path
    data: Dataset
    syntax: str
    pixels_start: int | None
    num_pixel_bytes: int
    is_encapsulated: bool
    is_deflated: bool
    num_bytes: int

    @property
    def kind(self) -> Message:
        """The name of the SOP class in the DICOM standard."""
        uid = UID(get_text(self.data, "SOPClassUID"))
        name = uid.name if uid else "DICOM without a SOP class"
        return restore_message(name, "" if uid and name == uid else name)


@dataclass(frozen=True)
class MergedDatasets:
    """The attributes of a frame, each taken from the first layer that has it."""

    layers: tuple[Dataset, ...]


Attributes: TypeAlias = Dataset | MergedDatasets


def parse(path: Path, file: BufferedIOBase) -> Header:
    """Parses the header of an open file; rejects files that are not DICOM, damaged or implausibly large."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return _parse(path, file)
    except ReadRejected:
        raise
    except Exception as error:  # a parser of damaged bytes can raise any exception
        raise ReadRejected(
            "unreadable", Message("damaged before its pixels ({error})", error=type(error).__name__)
        ) from None


def open_dataset(file: BufferedIOBase) -> tuple[BufferedIOBase, str]:
    """Returns the stream after the meta header, inflated up to a limit if it is deflated, and its transfer syntax."""
    preamble = file.read(132)
    if preamble[128:] != b"DICM":
        if not NO_PREAMBLE.match(preamble):
            raise ReadRejected("not-dicom", Message("not a DICOM file"))
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", "")) or _guess_syntax(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        return _inflate(file), ExplicitVRLittleEndian
    return file, syntax


def get_text(data: Attributes, keyword: str) -> str:
    """Returns an attribute as text, multiple values joined by a backslash; empty if it is missing."""
    value = _get_value(data, keyword)
    if value is None:
        return ""
    return "\\".join(str(v) for v in value) if isinstance(value, MultiValue) else str(value).strip()


def get_floats(data: Attributes, keyword: str, count: int) -> tuple[float, ...] | None:
    """Returns exactly `count` finite numbers; None if the attribute is missing or empty."""
    value = _get_value(data, keyword)
    if value is None or value == "":
        return None
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        parsed = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        parsed = ()
    if len(parsed) != count or not all(math.isfinite(v) for v in parsed):
        shown_values = ", ".join(str(v) for v in values)[:60]
        raise ReadRejected(
            "values",
            Message(
                "{keyword} is [{values}]; {count} finite number(s) are needed",
                keyword=keyword,
                values=shown_values,
                count=count,
            ),
        )
    return parsed


def get_int(data: Attributes, keyword: str) -> int | None:
    """Returns one whole number; None if the attribute is missing."""
    values = get_floats(data, keyword, 1)
    if values is not None and values[0] != int(values[0]):
        raise ReadRejected(
            "values",
            Message("{keyword} is {value}; a whole number is needed", keyword=keyword, value=f"{values[0]:g}"),
        )
    return None if values is None else int(values[0])


def get_items(data: Attributes, keyword: str) -> list[Dataset]:
    """Returns the items of a sequence; empty if it is missing."""
    value = _get_value(data, keyword)
    return list(value) if isinstance(value, Sequence) else []


def _parse(path: Path, file: BufferedIOBase) -> Header:
    """Parses the attributes and checks that the file ends after the pixels."""
    stream, syntax = open_dataset(file)
    pixels: list[tuple[int, int]] = []
    data = read_dataset(
        stream, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian,
        stop_when=_stop_at_pixels(stream, pixels), defer_size=MAX_ELEMENT_BYTES,
    )  # fmt: skip
    if not data:
        raise ReadRejected("unreadable", Message("holds no DICOM attributes"))
    start, length = pixels[0] if pixels else (None, 0)
    encapsulated = start is not None and length == UNDEFINED
    if encapsulated:
        length = _measure_fragments(stream, pixels[0][0])
    if start is not None and length >= 0:
        _check_trailing_bytes(stream, start + length, "big" if syntax == ExplicitVRBigEndian else "little")
    return Header(path, data, syntax, start, length, encapsulated, stream is not file, stream.seek(0, 2))


def _stop_at_pixels(stream: BufferedIOBase, pixels: list[tuple[int, int]]) -> Callable[[Any, str | None, int], bool]:
    """Returns a function that stops the parser at the pixels and appends their position and length to a list."""

    def is_at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if stream.tell() > MAX_HEADER_BYTES:
            raise ReadRejected(
                "too-big", Message("the header alone is larger than {limit} MiB", limit=MAX_HEADER_BYTES >> 20)
            )
        number = int(tag)  # pydicom's tags compare slowly
        if number == PIXEL_DATA:
            pixels.append((stream.tell(), length))
        return number >= PIXEL_DATA  # the group's length and the Extended Offset Table come before it

    return is_at_pixels


def _measure_fragments(stream: BufferedIOBase, start: int) -> int:
    """Returns the number of bytes of the encapsulated pixels from `start`; -1 if they are truncated."""
    end = stream.seek(0, 2)
    stream.seek(start)
    while (tag := stream.read(4)) == ITEM:
        stream.seek(int.from_bytes(stream.read(4), "little"), 1)
    return stream.tell() + 4 - start if tag == DELIMITER and stream.tell() <= end else -1


def _check_trailing_bytes(stream: BufferedIOBase, end: int, order: Literal["big", "little"]) -> None:
    """Rejects anything but padding and signatures after the pixels, since it means that bytes were moved."""
    stream.seek(end)
    trailing = stream.read(4)
    if trailing and int.from_bytes(trailing[:2], order) not in LAST_GROUPS:
        raise ReadRejected("pixels", Message("more bytes follow its pixels than it declares"))


def _guess_syntax(file: BufferedIOBase) -> str:
    """Guesses the missing transfer syntax: explicit if a value representation follows the first tag."""
    first = file.read(6)
    file.seek(-len(first), 1)
    return ExplicitVRLittleEndian if re.fullmatch(rb"[A-Z]{2}", first[4:]) else ImplicitVRLittleEndian


def _inflate(file: BufferedIOBase) -> BufferedIOBase:
    """Inflates a deflated data set up to a limit."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    deflated = file.read()
    limit = min(MAX_INFLATED_BYTES, max(FREE_BYTES, BOMB_RATIO * len(deflated)))
    inflated = decompressor.decompress(deflated, limit)
    if decompressor.unconsumed_tail:
        raise ReadRejected(
            "too-big", Message("unpacks to more than {limit} MiB: a decompression bomb", limit=limit >> 20)
        )
    if not decompressor.eof:
        raise ReadRejected("unreadable", Message("its deflated stream breaks off"))
    return BytesIO(inflated)


def _get_value(data: Attributes, keyword: str) -> Any:
    """Returns the value of an attribute, in the first layer that has one; None if it is missing or empty."""
    tag = tag_for_keyword(keyword)
    for layer in data.layers if isinstance(data, MergedDatasets) else (data,):
        element = layer.get_item(tag)
        value = None if element is None else _convert_element(layer, element, keyword)
        if value is not None:
            return value
    return None


def _convert_element(data: Dataset, element: Any, keyword: str) -> Any:
    """Returns the value of an attribute of a data set, which pydicom parses on the first access."""
    if isinstance(element, DataElement):
        return element.value
    try:
        vr = element.VR or _look_up_vr(element.tag)
        if vr in KEPT_VRS and element.value and KEPT_VRS[vr].fullmatch(element.value):
            return _convert_bytes(int(element.tag), vr, element.value, element.is_little_endian)
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return data[element.tag].value
    except Exception as error:
        raise ReadRejected(
            "values", Message("{keyword} cannot be read ({error})", keyword=keyword, error=type(error).__name__)
        ) from None


def _look_up_vr(tag: int) -> str:
    """Returns the kind of a standard attribute, which implicit syntaxes do not state."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


@lru_cache(maxsize=4096)
def _convert_bytes(tag: int, vr: str, content: bytes, is_little_endian: bool) -> Any:
    """Returns the value of an attribute of one of `KEPT_VRS`; the files of a series share most of them."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        raw = RawDataElement(BaseTag(tag), vr, len(content), content, 0, False, is_little_endian)
        return convert_raw_data_element(raw).value

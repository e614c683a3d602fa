"""Header: the attributes of one DICOM file, parsed strictly, and where its pixels lie."""

import math
import re
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medssl.io.rejected import Refusal

HEADER_BYTES = 256 << 20
ELEMENT_BYTES = 16 << 20  # a longer attribute is passed over: none that is read is as long
INFLATED_BYTES, FREE_BYTES, BOMB_RATIO = 2 << 30, 64 << 20, 50
PIXEL_GROUP, PIXEL_DATA, LAST_GROUPS = 0x7FE0, 0x7FE00010, (0x7FE0, 0xFFFA, 0xFFFC)
UNDEFINED = 0xFFFFFFFF
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
BARE = re.compile(rb"[\x02\x08]\x00[\x00-\xff]\x00")


@dataclass(frozen=True)
class Header:
    """What one DICOM file says before its pixels, and where in the (inflated) file those start."""

    path: Path
    data: Dataset
    syntax: str
    pixels_at: int | None
    pixels_bytes: int
    encapsulated: bool
    bytes: int

    @property
    def kind(self) -> str:
        """What the file is, in the standard's words."""
        uid = text(self.data, "SOPClassUID")
        return UID(uid).name if uid else "DICOM without a SOP class"


@dataclass(frozen=True)
class Layers:
    """Attributes of one frame: those of the first layer that has them."""

    layers: tuple[Any, ...]

    def get(self, keyword: str) -> Any:
        """The value of an attribute, None where no layer has it."""
        return next((value for layer in self.layers if (value := layer.get(keyword)) is not None), None)


Attributes: TypeAlias = Dataset | Layers


def parse(path: Path, file: BufferedIOBase) -> Header:
    """The header of an open file; refuses what is no DICOM, what is broken and what is absurdly large."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return _parse(path, file)
    except Refusal:
        raise
    except Exception as error:  # whatever a parser of foreign bytes may raise
        raise Refusal("unreadable", f"damaged before its pixels ({type(error).__name__})") from None


def inflated(file: BufferedIOBase) -> tuple[BufferedIOBase, str]:
    """The data set's stream, inflated within a budget where it was deflated, and its transfer syntax."""
    lead = file.read(132)
    if lead[128:] != b"DICM":
        if not BARE.match(lead):
            raise Refusal("not-dicom", "not a DICOM file")
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", "")) or _guessed(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        return _unpacked(file), ExplicitVRLittleEndian
    return file, syntax


def text(data: Attributes, keyword: str) -> str:
    """An attribute as text; empty where absent, several values joined by a backslash."""
    value = _value(data, keyword)
    if value is None:
        return ""
    return "\\".join(str(v) for v in value) if isinstance(value, MultiValue) else str(value).strip()


def numbers(data: Attributes, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None where the attribute is absent or empty."""
    value = _value(data, keyword)
    if value is None or value == "":
        return None
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        given = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        given = ()
    if len(given) != count or not all(math.isfinite(v) for v in given):
        told = ", ".join(str(v) for v in values)[:60]
        raise Refusal("values", f"{keyword} is [{told}]; {count} finite number(s) must stand there")
    return given


def whole(data: Attributes, keyword: str) -> int | None:
    """One whole number, or None where absent."""
    given = numbers(data, keyword, 1)
    if given is not None and given[0] != int(given[0]):
        raise Refusal("values", f"{keyword} is {given[0]:g}; a whole number must stand there")
    return None if given is None else int(given[0])


def items(data: Attributes, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent."""
    value = _value(data, keyword)
    return list(value) if isinstance(value, Sequence) else []


def _parse(path: Path, file: BufferedIOBase) -> Header:
    stream, syntax = inflated(file)
    found: list[tuple[int, int]] = []
    data = read_dataset(
        stream, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian,
        stop_when=_at_pixels(stream, found), defer_size=ELEMENT_BYTES,
    )  # fmt: skip
    if not data:
        raise Refusal("unreadable", "holds no DICOM attributes")
    start, length = found[0] if found else (None, 0)
    encapsulated = start is not None and length == UNDEFINED
    if encapsulated:
        length = _fragment_bytes(stream, found[0][0])
    if start is not None and length >= 0:
        _check_rest(stream, start + length, "big" if syntax == ExplicitVRBigEndian else "little")
    return Header(path, data, syntax, start, length, encapsulated, stream.seek(0, 2))


def _at_pixels(stream: BufferedIOBase, found: list[tuple[int, int]]) -> Callable[[Any, str | None, int], bool]:
    def stop(tag: Any, vr: str | None, length: int) -> bool:
        if stream.tell() > HEADER_BYTES:
            raise Refusal("too-big", f"the header alone is larger than {HEADER_BYTES >> 20} MiB")
        if tag == PIXEL_DATA:
            found.append((stream.tell(), length))
        return tag.group >= PIXEL_GROUP

    return stop


def _fragment_bytes(stream: BufferedIOBase, start: int) -> int:
    """The length of the encapsulated pixels from `start`; -1 if they break off."""
    end = stream.seek(0, 2)
    stream.seek(start)
    while (tag := stream.read(4)) == ITEM:
        stream.seek(int.from_bytes(stream.read(4), "little"), 1)
    return stream.tell() + 4 - start if tag == DELIMITER and stream.tell() <= end else -1


def _check_rest(stream: BufferedIOBase, end: int, order: Literal["big", "little"]) -> None:
    """After the pixels only padding or signatures may stand; anything else means that bytes were moved."""
    stream.seek(end)
    rest = stream.read(4)
    if rest and int.from_bytes(rest[:2], order) not in LAST_GROUPS:
        raise Refusal("pixels", "more bytes stand behind its pixels than it declares")


def _guessed(file: BufferedIOBase) -> str:
    """Of a file without a transfer syntax: explicit if a value representation stands after the first tag."""
    first = file.read(6)
    file.seek(-len(first), 1)
    return ExplicitVRLittleEndian if re.fullmatch(rb"[A-Z]{2}", first[4:]) else ImplicitVRLittleEndian


def _unpacked(file: BufferedIOBase) -> BufferedIOBase:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = file.read()
    budget = min(INFLATED_BYTES, max(FREE_BYTES, BOMB_RATIO * len(packed)))
    plain = machine.decompress(packed, budget)
    if machine.unconsumed_tail:
        raise Refusal("too-big", f"unpacks to more than {budget >> 20} MiB: a bomb")
    if not machine.eof:
        raise Refusal("unreadable", "its deflated stream breaks off")
    return BytesIO(plain)


def _value(data: Attributes, keyword: str) -> Any:
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return data.get(keyword)
    except Exception as error:
        raise Refusal("values", f"{keyword} cannot be read ({type(error).__name__})") from None

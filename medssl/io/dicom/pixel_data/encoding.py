"""Layout: how the numbers of one DICOM file are encoded, checked against the bytes that are there."""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medssl.io.dicom.header import Header, text, whole
from medssl.io.dicom.pixel_data.codec_process import CODECS
from medssl.io.rejected import Refusal

SIDE_VOXELS = 1 << 14
FILE_VOXELS = 1 << 31
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True)
class Layout:
    """The size, width and encoding of the stored numbers, and where in the file they start."""

    rows: int
    columns: int
    frames: int
    bits: int
    stored: int
    signed: bool
    syntax: str
    start: int

    @property
    def native(self) -> bool:
        """Whether the numbers stand there uncompressed."""
        return self.syntax in NATIVE

    @property
    def frame_bytes(self) -> int:
        """One uncompressed frame."""
        return self.rows * self.columns * self.bits // 8


def layout(header: Header) -> Layout:
    """The layout a header declares; refuses colour, impossible numbers and pixels that are not all there."""
    data = header.data
    if header.pixels_at is None:
        raise Refusal("pixels", "has no pixel data")
    grey = text(data, "PhotometricInterpretation").startswith("MONOCHROME")
    if whole(data, "SamplesPerPixel") != 1 or not grey:
        raise Refusal("colour", "a colour image, not a measurement: a screenshot or a fused display")
    frames = whole(data, "NumberOfFrames")
    found = Layout(
        rows=_between(data, "Rows", 1, SIDE_VOXELS),
        columns=_between(data, "Columns", 1, SIDE_VOXELS),
        frames=1 if frames is None else _between(data, "NumberOfFrames", 1, 1 << 16),
        bits=_between(data, "BitsAllocated", 8, 32),
        stored=_between(data, "BitsStored", 1, 32),
        signed=_between(data, "PixelRepresentation", 0, 1) == 1,
        syntax=header.syntax,
        start=header.pixels_at,
    )
    _check_bits(found, whole(data, "HighBit"))
    _check_length(found, header)
    return found


def _between(data: Dataset, keyword: str, low: int, high: int) -> int:
    value = whole(data, keyword)
    if value is None or not low <= value <= high:
        raise Refusal("values", f"{keyword} is {value}; {low} to {high} may stand there")
    return value


def _check_bits(found: Layout, high_bit: int | None) -> None:
    if found.bits not in (8, 16, 32) or found.stored > found.bits:
        raise Refusal("values", f"{found.stored} bits stored in {found.bits} allocated: no such number is read")
    if high_bit is not None and high_bit != found.stored - 1:
        raise Refusal("values", f"HighBit is {high_bit}; with {found.stored} bits stored it must be {found.stored - 1}")
    if found.syntax == ExplicitVRBigEndian and found.bits == 8:
        raise Refusal("values", "8-bit numbers in big-endian words are not read")


def _check_length(found: Layout, header: Header) -> None:
    if found.rows * found.columns * found.frames > FILE_VOXELS:
        raise Refusal("too-big", f"{found.columns}x{found.rows}x{found.frames} voxels; at most {FILE_VOXELS} are read")
    if not found.native:
        if found.syntax not in CODECS:
            raise Refusal("pixels", f"its encoding {UID(found.syntax).name} is not read; export it uncompressed")
        if not header.encapsulated:
            raise Refusal("pixels", f"says {UID(found.syntax).name}, but its pixels are not encapsulated")
        if header.pixels_bytes < 0:
            raise Refusal("pixels", "truncated: its compressed pixels break off")
        return
    expected, declared, there = found.frame_bytes * found.frames, header.pixels_bytes, header.bytes - found.start
    if header.encapsulated:
        raise Refusal("pixels", f"says {UID(found.syntax).name}, but its pixels are encapsulated")
    if there < min(declared, expected):
        raise Refusal("pixels", f"truncated: {max(0, there)} of {expected} bytes of pixels are there")
    if declared not in (expected, expected + expected % 2):
        raise Refusal(
            "pixels", f"{declared} bytes of pixels; {found.columns}x{found.rows}x{found.frames} need {expected}"
        )

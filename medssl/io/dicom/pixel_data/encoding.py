"""Reads how the pixels of a DICOM file are encoded and checks it against the number of bytes in the file."""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medssl.errors import Message
from medssl.io.dicom.header import Header, get_int, get_text
from medssl.io.dicom.pixel_data.codec_process import CODECS
from medssl.io.rejected import ReadRejected

MAX_SIDE_VOXELS = 1 << 14
MAX_FILE_VOXELS = 1 << 31
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True)
class PixelEncoding:
    """The size of the frames, the type of the stored values, their transfer syntax and their position in the file.

    The position is that in the data set after it is inflated, if it is deflated.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    syntax: str
    start: int
    is_deflated: bool = False

    @property
    def is_native(self) -> bool:
        """Whether the pixels are uncompressed."""
        return self.syntax in NATIVE

    @property
    def frame_bytes(self) -> int:
        """The number of bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def read_encoding(header: Header) -> PixelEncoding:
    """Reads the pixel encoding of a header; rejects colour, contradictory numbers and truncated pixels."""
    data = header.data
    if header.pixels_start is None:
        raise ReadRejected("pixels", Message("has no pixel data"))
    grey = get_text(data, "PhotometricInterpretation").startswith("MONOCHROME")
    if get_int(data, "SamplesPerPixel") != 1 or not grey:
        raise ReadRejected("colour", Message("a colour image, not a measurement: a screenshot or a fused display"))
    frames = get_int(data, "NumberOfFrames")
    encoding = PixelEncoding(
        rows=_read_bounded(data, "Rows", 1, MAX_SIDE_VOXELS),
        columns=_read_bounded(data, "Columns", 1, MAX_SIDE_VOXELS),
        frames=1 if frames is None else _read_bounded(data, "NumberOfFrames", 1, 1 << 16),
        bits_allocated=_read_bounded(data, "BitsAllocated", 8, 32),
        bits_stored=_read_bounded(data, "BitsStored", 1, 32),
        is_signed=_read_bounded(data, "PixelRepresentation", 0, 1) == 1,
        syntax=header.syntax,
        start=header.pixels_start,
        is_deflated=header.is_deflated,
    )
    _check_bits(encoding, get_int(data, "HighBit"))
    _check_length(encoding, header)
    return encoding


def _read_bounded(data: Dataset, keyword: str, low: int, high: int) -> int:
    """Returns a whole number within bounds."""
    value = get_int(data, keyword)
    if value is None or not low <= value <= high:
        raise ReadRejected(
            "values",
            Message(
                "{keyword} is {value!s}; {low} to {high} is allowed",
                keyword=keyword,
                value=value,
                low=low,
                high=high,
            ),
        )
    return value


def _check_bits(encoding: PixelEncoding, high_bit: int | None) -> None:
    """Rejects bit counts that contradict each other or are not supported."""
    if encoding.bits_allocated not in (8, 16, 32) or encoding.bits_stored > encoding.bits_allocated:
        raise ReadRejected(
            "values",
            Message(
                "{stored} bits stored in {bits!s} allocated; 8, 16 or 32 bits must hold the stored ones",
                stored=encoding.bits_stored,
                bits=encoding.bits_allocated,
            ),
        )
    if high_bit is not None and high_bit != encoding.bits_stored - 1:
        raise ReadRejected(
            "values",
            Message(
                "HighBit is {high_bit!s}; with {stored} bits stored it must be {expected}",
                high_bit=high_bit,
                stored=encoding.bits_stored,
                expected=encoding.bits_stored - 1,
            ),
        )
    if encoding.syntax == ExplicitVRBigEndian and encoding.bits_allocated == 8:
        raise ReadRejected(
            "values", Message("8-bit values in big-endian words are not supported; export it in little endian")
        )


def _check_length(encoding: PixelEncoding, header: Header) -> None:
    """Rejects transfer syntaxes that cannot be decoded and pixels of another length than declared."""
    if encoding.rows * encoding.columns * encoding.frames > MAX_FILE_VOXELS:
        raise ReadRejected(
            "too-big",
            Message(
                "{columns}x{rows}x{frames} voxels; at most {limit} can be read",
                columns=encoding.columns,
                rows=encoding.rows,
                frames=encoding.frames,
                limit=MAX_FILE_VOXELS,
            ),
        )
    if not encoding.is_native:
        if encoding.syntax not in CODECS:
            raise ReadRejected(
                "pixels",
                Message(
                    "its transfer syntax {encoding} is not supported; export it uncompressed",
                    encoding=UID(encoding.syntax).name,
                ),
            )
        if not header.is_encapsulated:
            raise ReadRejected(
                "pixels",
                Message("declares {encoding}, but its pixels are not encapsulated", encoding=UID(encoding.syntax).name),
            )
        if header.num_pixel_bytes < 0:
            raise ReadRejected("pixels", Message("truncated: its compressed pixels break off"))
        return
    expected, declared, available = (
        encoding.frame_bytes * encoding.frames,
        header.num_pixel_bytes,
        header.num_bytes - encoding.start,
    )
    if header.is_encapsulated:
        raise ReadRejected(
            "pixels",
            Message("declares {encoding}, but its pixels are encapsulated", encoding=UID(encoding.syntax).name),
        )
    if available < min(declared, expected):
        raise ReadRejected(
            "pixels",
            Message(
                "truncated: {num_bytes} of {expected} bytes of pixels are present",
                num_bytes=max(0, available),
                expected=expected,
            ),
        )
    if declared not in (expected, expected + expected % 2):
        raise ReadRejected(
            "pixels",
            Message(
                "{declared} bytes of pixels; {columns}x{rows}x{frames} need {expected}",
                declared=declared,
                columns=encoding.columns,
                rows=encoding.rows,
                frames=encoding.frames,
                expected=expected,
            ),
        )

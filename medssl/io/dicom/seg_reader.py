"""Reads DICOM SEG masks (binary, fractional or label map) and places them on the voxels of their series."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Integer
from pydicom.uid import UID, ExplicitVRBigEndian

from medssl.errors import InputWarning, Message
from medssl.io import archives
from medssl.io.dicom.frames import merge_functional_groups, require_numbers
from medssl.io.dicom.header import Attributes, Header, get_int, get_items, get_text, open_dataset
from medssl.io.dicom.pixel_data.codec_process import CODECS
from medssl.io.dicom.pixel_data.decode import decode
from medssl.io.dicom.pixel_data.encoding import NATIVE, PixelEncoding
from medssl.io.dicom.structures import has_outline_name
from medssl.io.rejected import ReadRejected
from medssl.io.voxels import list_label_values
from medssl.volume import Volume

ALLOWED_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}  # per pixel, for each segmentation type
MAX_OFFSET_VOXELS = 0.05  # the largest distance of a pixel from the centre of its voxel
TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_structures(header: Header) -> tuple[str, tuple["SegmentStructure", ...]]:
    """Returns the UID of the series that was segmented, and the segments; those of one label are one structure.

    The UID is empty if the file names no series.
    """
    data, kind = header.data, get_text(header.data, "SegmentationType")
    if kind not in ALLOWED_BITS or (header.syntax not in NATIVE and header.syntax not in CODECS):
        raise ReadRejected(
            "values",
            Message(
                "a {kind} segmentation in {syntax}; only BINARY, FRACTIONAL and LABELMAP can be read, uncompressed or "
                "in RLE, JPEG-LS or JPEG 2000",
                kind=kind,
                syntax=UID(header.syntax).name,
            ),
        )
    stored = _read_stored_values(header, kind)
    segments: dict[int, list[SegmentFrame]] = {}
    for frame, group in zip(stored, merge_functional_groups(header, len(stored)), strict=True):
        for number, segment in _split_frame(frame, group, kind, get_int(data, "MaximumFractionalValue") or 1):
            segments.setdefault(number, []).append(segment)
    labels = {get_int(s, "SegmentNumber"): get_text(s, "SegmentLabel") for s in get_items(data, "SegmentSequence")}
    names = {n: name for n, name in labels.items() if n or kind != "LABELMAP"}  # 0 is the background of a label map
    if not set(segments) <= set(names):
        raise ReadRejected(
            "values",
            Message(
                "its frames hold the segments {numbers!s}, its header names {names}; export it again",
                numbers=sorted(segments),
                names=names,
            ),
        )
    series = {get_text(s, "SeriesInstanceUID") for s in get_items(data, "ReferencedSeriesSequence")}
    if len(series) > 1:
        raise ReadRejected(
            "mixed",
            Message(
                "refers to {num_series} series; exactly one is needed: export the segments of each series alone",
                num_series=len(series),
            ),
        )
    frames_of: dict[str, list[SegmentFrame]] = {}
    for segment_number, name in names.items():
        frames_of.setdefault(name, []).extend(segments.get(segment_number or 0, []))
    structures = tuple(SegmentStructure(name, has_outline_name(name), tuple(f)) for name, f in frames_of.items())
    return series.pop() if series else "", structures


@dataclass(frozen=True)
class SegmentFrame:
    """One frame of a segment: the points inside (mm, RAS+) and the number of pixels that are only partly inside."""

    points: Float[np.ndarray, "_ 3"]
    num_partial: int = 0


@dataclass(frozen=True)
class SegmentStructure:
    """A structure drawn as masks, whose pixels must be voxel centres of the image."""

    name: str
    is_outline: bool
    frames: tuple[SegmentFrame, ...] = field(repr=False)

    def find_fault(self, image: Volume) -> Message | None:
        """Returns why the masks are not on the grid of an image; None if they are."""
        for frame in self.frames:
            index = image.to_index(frame.points)
            voxel = np.rint(index).astype(int)
            if len(voxel) and np.abs(index - voxel).max() > MAX_OFFSET_VOXELS:
                return Message("its masks lie between the voxels of the image; it was drawn on another grid")
            if len(voxel) and ((voxel < 0) | (voxel >= image.shape)).any():
                return Message("its masks lie outside the image; it was drawn on another grid")
        return None

    def draw(self, image: Volume) -> Bool[np.ndarray, "i j k"]:
        """Returns the voxels of all frames."""
        if num_partial := sum(frame.num_partial for frame in self.frames):
            message = Message(
                "{count} voxels are partly inside a structure; those covered by half or more count as inside",
                count=num_partial,
            )
            warnings.warn(message, InputWarning, stacklevel=3)
        mask = np.zeros(image.shape, bool)
        for frame in self.frames:
            voxel = np.rint(image.to_index(frame.points)).astype(int)
            mask[voxel[:, 0], voxel[:, 1], voxel[:, 2]] = True
        return mask


def _read_stored_values(header: Header, kind: str) -> Integer[np.ndarray, "n j i"]:
    """Returns the stored values of all frames."""
    data = header.data
    n, j, i = (get_int(data, name) or 0 for name in ("NumberOfFrames", "Rows", "Columns"))
    bits, count = get_int(data, "BitsAllocated"), n * j * i
    if bits not in ALLOWED_BITS[kind]:
        raise ReadRejected(
            "values",
            Message(
                "a {kind} segmentation of {bits!s} bits; {allowed} bits are allowed",
                kind=kind,
                bits=bits,
                allowed=ALLOWED_BITS[kind],
            ),
        )
    shape = (n, j, i)
    if min(shape) < 1 or header.pixels_start is None or header.num_pixel_bytes < 0:
        raise ReadRejected("pixels", Message("its pixels are missing or truncated; export it again"))
    if header.syntax in CODECS:
        return _decode_values(header, shape, bits)
    if not 0 < bits * count <= 8 * header.num_pixel_bytes <= bits * count + 15:
        raise ReadRejected(
            "pixels",
            Message(
                "{num_bytes} bytes of pixels do not hold {shape} values of {bits!s} bits",
                num_bytes=header.num_pixel_bytes,
                shape=shape,
                bits=bits,
            ),
        )
    content = _read_pixel_bytes(header)
    if bits == 1:
        return np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little").reshape(shape)
    order = ">" if header.syntax == ExplicitVRBigEndian else "<"
    return np.frombuffer(content, f"{order}u{bits // 8}", count).reshape(shape)


def _decode_values(header: Header, shape: tuple[int, int, int], bits: int) -> Integer[np.ndarray, "n j i"]:
    """Decodes compressed frames; those of one bit are packed, eight pixels a byte."""
    n, j, i = shape
    if bits == 1 and j * i % 8:
        reason = Message("compressed frames of {rows}x{columns} single bits; export it uncompressed", rows=j, columns=i)
        raise ReadRejected("pixels", reason)
    rows, columns = (j, i) if bits > 1 else (1, j * i // 8)
    encoding = PixelEncoding(
        rows=rows, columns=columns, frames=n, bits_allocated=max(8, bits), bits_stored=max(8, bits), is_signed=False,
        syntax=header.syntax, start=header.pixels_start or 0,
    )  # fmt: skip
    (decoded,) = decode([(header.path.name, encoding, _read_pixel_bytes(header))])
    return decoded if bits > 1 else np.unpackbits(decoded.astype(np.uint8), bitorder="little").reshape(shape)


def _read_pixel_bytes(header: Header) -> bytes:
    """Returns the bytes of the pixels as they are stored."""
    with archives.open_file(header.path) as file:
        stream, _ = open_dataset(file)
        stream.seek(header.pixels_start or 0)
        content = stream.read(header.num_pixel_bytes)
    if len(content) < header.num_pixel_bytes:
        raise ReadRejected("pixels", Message("truncated; copy it again"))
    return content


def _split_frame(
    frame: Integer[np.ndarray, "j i"], group: Attributes, kind: str, highest: int
) -> Iterator[tuple[int, SegmentFrame]]:
    """Splits a frame into its segments, each with its number."""
    if kind == "LABELMAP":
        yield from (
            (number, SegmentFrame(_locate_pixels(frame == number, group)))
            for number in list_label_values(frame)
            if number
        )
        return
    number = get_int(group, "ReferencedSegmentNumber")
    num_partial = int(np.count_nonzero((frame > 0) & (frame < highest))) if kind == "FRACTIONAL" else 0
    yield (
        -1 if number is None else number,
        SegmentFrame(_locate_pixels(2 * frame.astype(int) >= highest, group), num_partial),
    )


def _locate_pixels(mask: Bool[np.ndarray, "j i"], group: Attributes) -> Float[np.ndarray, "n 3"]:
    """Returns the positions of the set pixels of a frame in mm, RAS+."""
    axes = np.array(require_numbers(group, "ImageOrientationPatient", 6))
    between_rows, between_columns = require_numbers(group, "PixelSpacing", 2)
    j, i = np.nonzero(mask)
    position = np.array(require_numbers(group, "ImagePositionPatient", 3))
    return (position + i[:, None] * axes[:3] * between_columns + j[:, None] * axes[3:] * between_rows) * TO_RAS

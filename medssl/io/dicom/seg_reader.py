"""Reads DICOM SEG masks (binary, fractional or label map) and places them on the voxels of their series."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Integer
from pydicom.uid import ExplicitVRBigEndian

from medssl.errors import InputWarning, Message
from medssl.io import archives
from medssl.io.dicom.frames import merge_functional_groups, require_numbers
from medssl.io.dicom.header import Attributes, Header, get_int, get_items, get_text, open_dataset
from medssl.io.dicom.pixel_data.encoding import NATIVE
from medssl.io.rejected import ReadRejected
from medssl.io.voxels import list_label_values
from medssl.volume import Volume

ALLOWED_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}  # per pixel, for each segmentation type
MAX_OFFSET_VOXELS = 0.05  # the largest distance of a pixel from the centre of its voxel
TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_structures(header: Header) -> tuple[str, dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]]]:
    """Returns the UID of the series that was segmented, and a mask builder for each segment by name."""
    data, kind = header.data, get_text(header.data, "SegmentationType")
    if kind not in ALLOWED_BITS or header.syntax not in NATIVE:
        raise ReadRejected(
            "values",
            Message("a {kind} segmentation; only uncompressed BINARY, FRACTIONAL and LABELMAP can be read", kind=kind),
        )
    stored = _read_stored_values(header, kind)
    segments: dict[int, list[_SegmentFrame]] = {}
    for frame, group in zip(stored, merge_functional_groups(header, len(stored)), strict=True):
        for number, segment in _split_frame(frame, group, kind, get_int(data, "MaximumFractionalValue") or 1):
            segments.setdefault(number, []).append(segment)
    labels = {get_int(s, "SegmentNumber"): get_text(s, "SegmentLabel") for s in get_items(data, "SegmentSequence")}
    names = {n: name for n, name in labels.items() if n or kind != "LABELMAP"}  # 0 is the background of a label map
    if len(set(names.values())) < len(names) or not set(segments) <= set(names):
        raise ReadRejected(
            "values",
            Message(
                "its frames hold the segments {numbers!s}, its header names {names}",
                numbers=sorted(segments),
                names=names,
            ),
        )
    series = {get_text(s, "SeriesInstanceUID") for s in get_items(data, "ReferencedSeriesSequence")}
    if len(series) != 1:
        raise ReadRejected(
            "mixed", Message("refers to {num_series} series; exactly one is needed", num_series=len(series))
        )
    return series.pop(), {name: partial(place_frames, segments.get(n or 0, [])) for n, name in names.items()}


@dataclass(frozen=True)
class _SegmentFrame:
    """One frame of a segment: the points inside (mm, RAS+) and the number of pixels that are only partly inside."""

    points: Float[np.ndarray, "_ 3"]
    num_partial: int = 0


def place_frames(frames: Sequence[_SegmentFrame], image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Returns the mask of the points of all frames, which must be voxel centres of the image."""
    if num_partial := sum(frame.num_partial for frame in frames):
        message = Message(
            "{count} voxels are partly inside a structure; those covered by half or more count as inside",
            count=num_partial,
        )
        warnings.warn(message, InputWarning, stacklevel=2)
    mask = np.zeros(image.shape, bool)
    for frame in frames:
        index = image.to_index(frame.points)
        voxel = np.rint(index).astype(int)
        if len(voxel) and np.abs(index - voxel).max() > MAX_OFFSET_VOXELS:
            raise ReadRejected(
                "geometry", Message("its masks lie between the voxels of the image; it was drawn on another grid")
            )
        if len(voxel) and ((voxel < 0) | (voxel >= image.shape)).any():
            raise ReadRejected("geometry", Message("its masks lie outside the image"))
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
    if header.pixels_start is None or not 0 < bits * count <= 8 * header.num_pixel_bytes <= bits * count + 15:
        raise ReadRejected(
            "pixels",
            Message(
                "{num_bytes} bytes of pixels do not hold {shape} values of {bits!s} bits",
                num_bytes=header.num_pixel_bytes,
                shape=(n, j, i),
                bits=bits,
            ),
        )
    with archives.open_file(header.path) as file:
        stream, _ = open_dataset(file)
        stream.seek(header.pixels_start)
        content = stream.read(header.num_pixel_bytes)
    if len(content) < header.num_pixel_bytes:
        raise ReadRejected("pixels", Message("truncated"))
    if bits == 1:
        return np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little").reshape(n, j, i)
    order = ">" if header.syntax == ExplicitVRBigEndian else "<"
    return np.frombuffer(content, f"{order}u{bits // 8}", count).reshape(n, j, i)


def _split_frame(
    frame: Integer[np.ndarray, "j i"], group: Attributes, kind: str, highest: int
) -> Iterator[tuple[int, _SegmentFrame]]:
    """Splits a frame into its segments, each with its number."""
    if kind == "LABELMAP":
        yield from (
            (number, _SegmentFrame(_locate_pixels(frame == number, group)))
            for number in list_label_values(frame)
            if number
        )
        return
    number = get_int(group, "ReferencedSegmentNumber")
    num_partial = int(np.count_nonzero((frame > 0) & (frame < highest))) if kind == "FRACTIONAL" else 0
    yield (
        -1 if number is None else number,
        _SegmentFrame(_locate_pixels(2 * frame.astype(int) >= highest, group), num_partial),
    )


def _locate_pixels(mask: Bool[np.ndarray, "j i"], group: Attributes) -> Float[np.ndarray, "n 3"]:
    """Returns the positions of the set pixels of a frame in mm, RAS+."""
    axes = np.array(require_numbers(group, "ImageOrientationPatient", 6))
    between_rows, between_columns = require_numbers(group, "PixelSpacing", 2)
    j, i = np.nonzero(mask)
    position = np.array(require_numbers(group, "ImagePositionPatient", 3))
    return (position + i[:, None] * axes[:3] * between_columns + j[:, None] * axes[3:] * between_rows) * TO_RAS

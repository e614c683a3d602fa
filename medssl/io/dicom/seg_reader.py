"""DICOM SEG: masks (binary, fractional, or a map of labels), frame by frame, laid onto the voxels of their series."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Integer
from pydicom.uid import ExplicitVRBigEndian

from medssl.errors import Doubt
from medssl.io import archives as archive
from medssl.io.dicom.frames import functional_groups, needed
from medssl.io.dicom.header import Attributes, Header, inflated, items, text, whole
from medssl.io.dicom.pixel_data.encoding import NATIVE
from medssl.io.rejected import Refusal
from medssl.io.voxels import present
from medssl.volume import Volume

KINDS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}  # of a segmentation: the bits of a number
OFF_VOXEL = 0.05
TO_RAS = np.array([-1.0, -1.0, 1.0])


def structures(header: Header) -> tuple[str, dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]]]:
    """The series that was segmented, and each segment by name."""
    data, kind = header.data, text(header.data, "SegmentationType")
    if kind not in KINDS or header.syntax not in NATIVE:
        raise Refusal("values", f"a {kind} segmentation; uncompressed BINARY, FRACTIONAL, LABELMAP ones are read")
    stored = _stored(header, kind)
    numbers: dict[int, list[_Part]] = {}
    for frame, group in zip(stored, functional_groups(header, len(stored)), strict=True):
        for number, part in _parts(frame, group, kind, whole(data, "MaximumFractionalValue") or 1):
            numbers.setdefault(number, []).append(part)
    described = {whole(s, "SegmentNumber"): text(s, "SegmentLabel") for s in items(data, "SegmentSequence")}
    names = {n: name for n, name in described.items() if n or kind != "LABELMAP"}  # there 0 is what is left
    if len(set(names.values())) < len(names) or not set(numbers) <= set(names):
        raise Refusal("values", f"segments {sorted(numbers)} are not those it names: {names}")
    series = {text(s, "SeriesInstanceUID") for s in items(data, "ReferencedSeriesSequence")}
    if len(series) != 1:
        raise Refusal("mixed", f"refers to {len(series)} series; one must be named")
    return series.pop(), {name: partial(laid, numbers.get(n or 0, [])) for n, name in names.items()}


@dataclass(frozen=True)
class _Part:
    """One frame of a segment: the points (mm, RAS+) inside, and how many pixels are neither inside nor outside."""

    points: Float[np.ndarray, "_ 3"]
    between: int = 0


def laid(frames: Sequence[_Part], image: Volume) -> Bool[np.ndarray, "i j k"]:
    """The voxels at the points of all frames, which must be voxel centres of the image."""
    if between := sum(frame.between for frame in frames):
        said = f"{between} voxels are partly inside a drawn structure: those that are by half or more count as inside"
        warnings.warn(said, Doubt, stacklevel=2)
    mask = np.zeros(image.shape, bool)
    for frame in frames:
        index = image.to_index(frame.points)
        at = np.rint(index).astype(int)
        if len(at) and np.abs(index - at).max() > OFF_VOXEL:
            raise Refusal("geometry", "its masks lie between the voxels of the image; it was drawn on another grid")
        if len(at) and ((at < 0) | (at >= image.shape)).any():
            raise Refusal("geometry", "its masks lie outside the image")
        mask[at[:, 0], at[:, 1], at[:, 2]] = True
    return mask


def _stored(header: Header, kind: str) -> Integer[np.ndarray, "n j i"]:
    """The numbers of all frames."""
    data = header.data
    n, j, i = (whole(data, name) or 0 for name in ("NumberOfFrames", "Rows", "Columns"))
    bits, count = whole(data, "BitsAllocated"), n * j * i
    if bits not in KINDS[kind]:
        raise Refusal("values", f"a {kind} segmentation of {bits} bits; {KINDS[kind]} may stand there")
    if header.pixels_at is None or not 0 < bits * count <= 8 * header.pixels_bytes <= bits * count + 15:
        raise Refusal("pixels", f"{header.pixels_bytes} bytes do not hold {(n, j, i)} numbers of {bits} bits")
    with archive.opened(header.path) as file:
        stream, _ = inflated(file)
        stream.seek(header.pixels_at)
        content = stream.read(header.pixels_bytes)
    if len(content) < header.pixels_bytes:
        raise Refusal("pixels", "truncated")
    if bits == 1:
        return np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little").reshape(n, j, i)
    order = ">" if header.syntax == ExplicitVRBigEndian else "<"
    return np.frombuffer(content, f"{order}u{bits // 8}", count).reshape(n, j, i)


def _parts(
    frame: Integer[np.ndarray, "j i"], group: Attributes, kind: str, highest: int
) -> Iterator[tuple[int, _Part]]:
    """What a frame holds of each segment."""
    if kind == "LABELMAP":
        yield from ((number, _Part(_points(frame == number, group))) for number in present(frame) if number)
        return
    number = whole(group, "ReferencedSegmentNumber")
    between = int(np.count_nonzero((frame > 0) & (frame < highest))) if kind == "FRACTIONAL" else 0
    yield -1 if number is None else number, _Part(_points(2 * frame.astype(int) >= highest, group), between)


def _points(mask: Bool[np.ndarray, "j i"], group: Attributes) -> Float[np.ndarray, "n 3"]:
    """Where the set pixels of one frame lie, in mm, RAS+."""
    axes = np.array(needed(group, "ImageOrientationPatient", 6))
    between_rows, between_columns = needed(group, "PixelSpacing", 2)
    j, i = np.nonzero(mask)
    position = np.array(needed(group, "ImagePositionPatient", 3))
    return (position + i[:, None] * axes[:3] * between_columns + j[:, None] * axes[3:] * between_rows) * TO_RAS

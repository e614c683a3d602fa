"""DICOM SEG: binary masks, frame by frame, laid onto the voxels of their series."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from medssl.io import archive
from medssl.io.dicom_frames import functional_groups, needed
from medssl.io.dicom_header import Attributes, Header, inflated, items, text, whole
from medssl.io.dicom_layout import NATIVE
from medssl.io.refused import Refusal
from medssl.volume import Volume

OFF_VOXEL = 0.05
TO_RAS = np.array([-1.0, -1.0, 1.0])


def structures(header: Header) -> tuple[str, dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]]]:
    """The series that was segmented, and each segment by name."""
    data = header.data
    if text(data, "SegmentationType") != "BINARY" or header.syntax not in NATIVE:
        raise Refusal("values", f"a {text(data, 'SegmentationType')} segmentation; uncompressed BINARY ones are read")
    masks = _masks(header)
    numbers: dict[int, list[Float[np.ndarray, "_ 3"]]] = {}
    for mask, group in zip(masks, functional_groups(header, len(masks)), strict=True):
        number = whole(group, "ReferencedSegmentNumber")
        numbers.setdefault(-1 if number is None else number, []).append(_points(mask, group))
    names = {whole(s, "SegmentNumber"): text(s, "SegmentLabel") for s in items(data, "SegmentSequence")}
    if len(set(names.values())) < len(names) or not set(numbers) <= set(names):
        raise Refusal("values", f"segments {sorted(numbers)} are not those it names: {names}")
    series = {text(s, "SeriesInstanceUID") for s in items(data, "ReferencedSeriesSequence")}
    if len(series) != 1:
        raise Refusal("mixed", f"refers to {len(series)} series; one must be named")
    return series.pop(), {name: partial(laid, numbers.get(n or 0, [])) for n, name in names.items()}


def laid(frames: Sequence[Float[np.ndarray, "_ 3"]], image: Volume) -> Bool[np.ndarray, "i j k"]:
    """The voxels at the points (mm, RAS+) of all frames, which must be voxel centres of the image."""
    mask = np.zeros(image.shape, bool)
    for points in frames:
        index = image.to_index(points)
        at = np.rint(index).astype(int)
        if len(at) and np.abs(index - at).max() > OFF_VOXEL:
            raise Refusal("geometry", "its masks lie between the voxels of the image; it was drawn on another grid")
        if len(at) and ((at < 0) | (at >= image.shape)).any():
            raise Refusal("geometry", "its masks lie outside the image")
        mask[at[:, 0], at[:, 1], at[:, 2]] = True
    return mask


def _masks(header: Header) -> Bool[np.ndarray, "n j i"]:
    data = header.data
    shape = tuple(whole(data, name) or 0 for name in ("NumberOfFrames", "Rows", "Columns"))
    bits = int(np.prod(shape, dtype=np.int64))
    if header.pixels_at is None or not 0 < bits <= 8 * header.pixels_bytes <= bits + 15:
        raise Refusal("pixels", f"{header.pixels_bytes} bytes do not hold {shape} bits")
    with archive.opened(header.path) as file:
        stream, _ = inflated(file)
        stream.seek(header.pixels_at)
        content = stream.read(header.pixels_bytes)
    if len(content) < header.pixels_bytes:
        raise Refusal("pixels", "truncated")
    plain = np.unpackbits(np.frombuffer(content, np.uint8), count=bits, bitorder="little")
    return plain.reshape(shape).astype(bool)


def _points(mask: Bool[np.ndarray, "j i"], group: Attributes) -> Float[np.ndarray, "n 3"]:
    """Where the set pixels of one frame lie, in mm, RAS+."""
    axes = np.array(needed(group, "ImageOrientationPatient", 6))
    between_rows, between_columns = needed(group, "PixelSpacing", 2)
    j, i = np.nonzero(mask)
    position = np.array(needed(group, "ImagePositionPatient", 3))
    return (position + i[:, None] * axes[:3] * between_columns + j[:, None] * axes[3:] * between_rows) * TO_RAS

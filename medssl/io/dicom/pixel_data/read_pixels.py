"""Voxels of a stack of slices: stored numbers made into values, losslessly and as small as that allows."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, Real
from pydicom.uid import ExplicitVRBigEndian

from medssl.errors import Doubt
from medssl.io import archives as archive
from medssl.io.dicom.frames import Frame
from medssl.io.dicom.header import inflated
from medssl.io.dicom.pixel_data.decode import decode
from medssl.io.dicom.pixel_data.encoding import Layout
from medssl.io.rejected import Refusal

SMALL = (np.uint8, np.int16, np.uint16, np.int32)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def stack(frames: Sequence[Frame], background: float) -> Real[np.ndarray, "i j k"]:
    """The values of the slices in the order given; padding becomes `background`."""
    raw = _stored(frames)
    _check_torn(frames, raw)
    empty = [_padding(frame, numbers) for frame, numbers in zip(frames, raw, strict=True)]
    dtype = _smallest(frames, raw, background)
    voxels = np.empty((raw[0].shape[1], raw[0].shape[0], len(raw)), dtype, order="F")
    for k, (frame, numbers) in enumerate(zip(frames, raw, strict=True)):
        voxels[:, :, k] = _values(frame, numbers).T
        if (padding := empty[k]) is not None:
            voxels[:, :, k][padding.T] = background
    return voxels


def same(first: Sequence[Frame], second: Sequence[Frame]) -> bool:
    """Whether two lists of slices lie at the same places and hold the same values, however they are encoded."""
    alike = [replace(b, path=a.path, layout=a.layout, marks=a.marks) == a for a, b in zip(first, second, strict=False)]
    if len(first) != len(second) or not all(alike):
        return False
    return all(map(np.array_equal, _stored(first), _stored(second)))


def _stored(frames: Sequence[Frame]) -> list[Integer[np.ndarray, "j i"]]:
    """The numbers of the slices as they were stored, with their sign."""
    packed = {frame.path: frame.layout for frame in frames if not frame.layout.native}
    try:
        plain = dict(zip(packed, decode([(at, _bytes(path, at)) for path, at in packed.items()]), strict=True))
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{_names(packed)}: {refusal}") from None
    return [_signed(plain[f.path][f.index] if f.path in plain else _native(f), f.layout) for f in frames]


def _bytes(path: Path, layout: Layout, index: int = 0) -> bytes:
    """The native frame `index`, or all encapsulated pixels."""
    with archive.opened(path) as file:
        stream, _ = inflated(file)
        stream.seek(layout.start + (index * layout.frame_bytes if layout.native else 0))
        return stream.read(layout.frame_bytes if layout.native else -1)


def _native(frame: Frame) -> Integer[np.ndarray, "j i"]:
    layout = frame.layout
    order = ">" if layout.syntax == ExplicitVRBigEndian else "<"
    content = _bytes(frame.path, layout, frame.index)
    if len(content) != layout.frame_bytes:
        raise Refusal("pixels", f"{frame.path.name}: truncated since its header was read")
    numbers = np.frombuffer(content, f"{order}u{layout.bits // 8}").reshape(layout.rows, layout.columns)
    _check_unused_bits(frame, numbers)
    return numbers


def _names(paths: Collection[Path]) -> str:
    names = sorted(path.name for path in paths)
    return names[0] if len(names) == 1 else f"one of {len(names)} files from {names[0]}"


def _check_torn(frames: Sequence[Frame], raw: Sequence[Integer[np.ndarray, "j i"]]) -> None:
    """Refuses slices that break off into zeros right after a full row, unless all do so at the same row."""
    ends = [_end(numbers) if frame.layout.native else None for frame, numbers in zip(frames, raw, strict=True)]
    columns = raw[0].shape[1]
    if len(set(ends)) == 1 and (ends[0] is None or ends[0] % columns == 0):
        return
    if torn := [frame for frame, end in zip(frames, ends, strict=True) if end is not None]:
        raise Refusal("pixels", f"{_names([f.path for f in torn])}: breaks off into zeros in the middle of the image")


def _end(numbers: Integer[np.ndarray, "j i"]) -> int | None:
    """Where an image breaks off: a tenth of it or more is zero up to its end, the row before that is not."""
    if numbers[-1].any() or not numbers.any():
        return None
    end = int(np.flatnonzero(numbers)[-1]) + 1
    before = numbers.reshape(-1)[max(0, end - numbers.shape[1]) : end]
    return end if end < 0.9 * numbers.size and np.count_nonzero(before) > 0.9 * len(before) else None


def _check_unused_bits(frame: Frame, numbers: Integer[np.ndarray, "j i"]) -> None:
    """Bits above BitsStored must be empty or repeat the sign; else the number of bits is a lie."""
    layout = frame.layout
    if layout.stored == layout.bits:
        return
    above = numbers >> layout.stored
    full = (1 << (layout.bits - layout.stored)) - 1
    negative = (numbers >> (layout.stored - 1) & 1).astype(bool)
    if layout.signed and negative.any() and not above.any():
        told = f"{frame.path.name}: negative numbers without a sign in their unused bits; its sign flag may be wrong"
        warnings.warn(told, Doubt, stacklevel=2)
    repeats = above == np.where(negative, full, 0)
    if above.any() and not (layout.signed and repeats.all()):
        raise Refusal("values", f"{frame.path.name}: its numbers use more than the {layout.stored} bits it declares")


def _signed(numbers: Integer[np.ndarray, "j i"], layout: Layout) -> Integer[np.ndarray, "j i"]:
    """The lowest `stored` bits, read with or without a sign."""
    width = layout.bits // 8
    shift = layout.bits - layout.stored
    lifted = numbers.astype(f"u{width}", copy=False) << np.array(shift, f"u{width}")
    return lifted.astype(f"{'i' if layout.signed else 'u'}{width}", copy=False) >> shift


def _padding(frame: Frame, numbers: Integer[np.ndarray, "j i"]) -> Bool[np.ndarray, "j i"] | None:
    """Where there is no image: padding that lies below or above all other numbers; None if there is none."""
    if frame.padding is None:
        return None
    bits, signed = frame.layout.bits, frame.layout.signed
    low, high = (_wrapped(value, bits, signed) for value in frame.padding)
    empty = (numbers >= low) & (numbers <= high)
    rest = numbers[~empty]
    outside = rest.size == 0 or rest.min() > high or rest.max() < low
    return empty if empty.any() and outside else None


def _wrapped(value: int, bits: int, signed: bool) -> int:
    """A padding value in the number type of the pixels, as some writers use the other sign."""
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def _smallest(frames: Sequence[Frame], raw: Sequence[Integer[np.ndarray, "j i"]], background: float) -> np.dtype:
    bounds = [background]
    for frame, numbers in zip(frames, raw, strict=True):
        bounds += [frame.slope * int(n) + frame.intercept for n in (numbers.min(), numbers.max())]
    if max(abs(b) for b in bounds) > FLOAT32_MAX:
        raise Refusal("values", "its rescaled values overflow")
    if not all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames):
        return np.dtype(np.float32)
    fits = (d for d in SMALL if np.iinfo(d).min <= min(bounds) and max(bounds) <= np.iinfo(d).max)
    return np.dtype(next(fits, np.float32))


def _values(frame: Frame, numbers: Integer[np.ndarray, "j i"]) -> Real[np.ndarray, "j i"]:
    if frame.slope.is_integer() and frame.intercept.is_integer():
        return numbers.astype(np.int64) * int(frame.slope) + int(frame.intercept)
    return numbers * frame.slope + frame.intercept

"""Voxels of a stack of slices: stored numbers made into values, losslessly and as small as that allows."""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Integer, Real
from pydicom.uid import ExplicitVRBigEndian

from medssl.io.decoding import decode
from medssl.io.dicom_frames import Frame
from medssl.io.dicom_header import opened
from medssl.io.dicom_layout import Layout
from medssl.io.refused import Refusal

SMALL = (np.uint8, np.int16, np.uint16, np.int32)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def stack(frames: Sequence[Frame], background: float) -> Real[np.ndarray, "i j k"]:
    """The values of the slices in the order given; padding becomes `background`."""
    raw = [_stored(frame) for frame in frames]
    empty = [_padding(frame, numbers) for frame, numbers in zip(frames, raw, strict=True)]
    first = raw[0]
    dtype = _smallest(frames, raw, background)
    voxels = np.empty((first.shape[1], first.shape[0], len(raw)), dtype, order="F")
    for k, (frame, numbers) in enumerate(zip(frames, raw, strict=True)):
        voxels[:, :, k] = _values(frame, numbers).T
        if (padding := empty[k]) is not None:
            voxels[:, :, k][padding.T] = background
    return voxels


def _stored(frame: Frame) -> Integer[np.ndarray, "j i"]:
    """The numbers of one slice as they were stored, with their sign."""
    layout = frame.layout
    with frame.path.open("rb") as file:
        stream, _ = opened(file)
        stream.seek(layout.start + (frame.index * layout.frame_bytes if layout.native else 0))
        content = stream.read(layout.frame_bytes if layout.native else -1)
    if layout.native:
        order = ">" if layout.syntax == ExplicitVRBigEndian else "<"
        numbers = np.frombuffer(content, f"{order}u{layout.bits // 8}").reshape(layout.rows, layout.columns)
        _check_unused_bits(frame, numbers)
    else:
        numbers = _decoded(frame, content)
    return _signed(numbers, layout)


def _decoded(frame: Frame, content: bytes) -> Integer[np.ndarray, "j i"]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode(content, frame.layout)[frame.index]
    except Refusal:
        raise
    except Exception as error:
        raise Refusal("pixels", f"{frame.path.name}: its pixels cannot be decoded ({error})") from None


def _check_unused_bits(frame: Frame, numbers: Integer[np.ndarray, "j i"]) -> None:
    """Bits above BitsStored must be empty or repeat the sign; else the number of bits is a lie."""
    layout = frame.layout
    if layout.stored == layout.bits:
        return
    above = numbers >> layout.stored
    full = (1 << (layout.bits - layout.stored)) - 1
    repeats = above == np.where(numbers >> (layout.stored - 1) & 1, full, 0)
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

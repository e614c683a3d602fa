"""Reads the pixels of a stack of slices and rescales them without loss to the smallest sufficient data type."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, Real
from pydicom.uid import ExplicitVRBigEndian

from medssl.arrays.disk_arrays import create_disk_array, release_pages
from medssl.errors import InputWarning, Message
from medssl.io import archives
from medssl.io.dicom.frames import Frame
from medssl.io.dicom.header import open_dataset
from medssl.io.dicom.pixel_data.decode import decode
from medssl.io.dicom.pixel_data.encoding import PixelEncoding
from medssl.io.rejected import ReadRejected

INTEGER_DTYPES = (np.uint8, np.int16, np.uint16, np.int32)
MAX_BATCH_BYTES = 256 << 20
OVERLAY_SHARE = 0.9  # see `_is_overlay`
FLOAT32_MAX = float(np.finfo(np.float32).max)


def stack_slices(frames: Sequence[Frame], background: float, on_disk: bool = False) -> Real[np.ndarray, "i j k"]:
    """Returns the rescaled values of the slices in the given order; padding becomes `background`.

    Where the result has as many bytes as the stored values, it takes their place.

    Args:
        frames: The slices.
        background: The value of padding.
        on_disk: Whether a large result lies on disk.
    """
    allocate = create_disk_array if on_disk else np.empty
    stored = _read_stored_values(frames, allocate)
    _check_truncated_slices(frames, stored)
    dtype = _choose_dtype(frames, stored, background)
    voxels = stored.view(dtype) if stored.dtype.itemsize == dtype.itemsize else allocate(stored.shape, dtype)
    for k, frame in enumerate(frames):
        padding = _find_padding(frame, stored[k])
        voxels[k] = _rescale(frame, stored[k])
        if padding is not None:
            voxels[k][padding] = background
        release_pages(stored, voxels)
    return voxels.transpose(2, 1, 0)


def have_same_content(first: Sequence[Frame], second: Sequence[Frame]) -> bool:
    """Returns whether two lists of slices have the same positions and values, whatever their encoding."""
    is_equal = [
        replace(b, path=a.path, encoding=a.encoding, volume_tags=a.volume_tags) == a
        for a, b in zip(first, second, strict=False)
    ]
    if len(first) != len(second) or not all(is_equal):
        return False
    return all(map(np.array_equal, _read_stored_values(first), _read_stored_values(second)))


def _read_stored_values(
    frames: Sequence[Frame], allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty
) -> Integer[np.ndarray, "n j i"]:
    """Returns the stored values of the slices before the rescale, with their sign; every file is opened once.

    Args:
        frames: The slices.
        allocate: Returns the array to fill, given its shape and type.
    """
    columns, rows = frames[0].size
    dtype = np.result_type(*{_stored_dtype(frame.encoding) for frame in frames})
    stored = allocate((len(frames), rows, columns), dtype)
    slices_of: dict[Path, list[int]] = {}
    for n, frame in enumerate(frames):
        slices_of.setdefault(frame.path, []).append(n)
    with archives.FileOpener() as opener:
        for path, numbers in slices_of.items():
            if frames[numbers[0]].encoding.is_native:
                with opener.open(path) as file:
                    is_deflated = frames[numbers[0]].encoding.is_deflated
                    stream = open_dataset(file)[0] if is_deflated else file
                    for n in numbers:
                        stored[n] = _extend_sign(_read_native(stream, frames[n]), frames[n].encoding)
            release_pages(stored)
        compressed = [path for path, numbers in slices_of.items() if not frames[numbers[0]].encoding.is_native]
        for batch in _make_batches({path: frames[slices_of[path][0]].encoding for path in compressed}):
            files = [
                (path.name, encoding, _read_encapsulated(opener, path, encoding)) for path, encoding in batch.items()
            ]
            for path, decoded in zip(batch, decode(files), strict=True):
                for n in slices_of[path]:
                    stored[n] = _extend_sign(_cut_slice(decoded, frames[n]), frames[n].encoding)
            release_pages(stored)
    return stored


def _iterate_slices(stored: Integer[np.ndarray, "n j i"]) -> Iterator[Integer[np.ndarray, "j i"]]:
    """Yields the slices, and releases the pages of each."""
    for values in stored:
        yield values
        release_pages(stored)


def _make_batches(encodings: Mapping[Path, PixelEncoding]) -> list[dict[Path, PixelEncoding]]:
    """Divides compressed files into batches with a limited number of decoded bytes."""
    batches: list[dict[Path, PixelEncoding]] = []
    num_bytes = 0
    for path, encoding in encodings.items():
        if not batches or num_bytes > MAX_BATCH_BYTES:
            batches.append({})
            num_bytes = 0
        batches[-1][path] = encoding
        num_bytes += encoding.frame_bytes * encoding.frames
    return batches


def _read_encapsulated(opener: archives.FileOpener, path: Path, encoding: PixelEncoding) -> bytes:
    """Returns the bytes of all encapsulated pixels of a file."""
    with opener.open(path) as file:
        file.seek(encoding.start)  # encapsulated pixels are not deflated
        return file.read()


def _read_native(stream: BufferedIOBase, frame: Frame) -> Integer[np.ndarray, "j i"]:
    """Reads the stored values of an uncompressed slice from the open file."""
    encoding = frame.encoding
    order = ">" if encoding.syntax == ExplicitVRBigEndian else "<"
    stream.seek(encoding.start + (0 if frame.tile else frame.index * encoding.frame_bytes))
    content = stream.read(encoding.frame_bytes)
    if len(content) != encoding.frame_bytes:
        raise ReadRejected("pixels", Message("{name}: truncated since its header was read", name=frame.path.name))
    values = np.frombuffer(content, f"{order}u{encoding.bits_allocated // 8}").reshape(1, encoding.rows, -1)
    values = _cut_slice(np.broadcast_to(values, (encoding.frames, *values.shape[1:])), frame)
    _check_unused_bits(frame, values)
    return values


def _cut_slice(stored: Integer[np.ndarray, "n j i"], frame: Frame) -> Integer[np.ndarray, "rows columns"]:
    """Returns the pixels of a slice from the frames of its file."""
    if frame.tile is None:
        return stored[frame.index]
    tile = frame.tile
    return stored[0, tile.first_row :, tile.first_column :][: tile.rows, : tile.columns]


def _stored_dtype(encoding: PixelEncoding) -> np.dtype:
    """Returns the type of the stored values."""
    return np.dtype(f"{'i' if encoding.is_signed else 'u'}{encoding.bits_allocated // 8}")


def _format_names(paths: Collection[Path]) -> str:
    """Names one file, or the number of files and the first one."""
    names = sorted(path.name for path in paths)
    return names[0] if len(names) == 1 else f"one of {len(names)} files from {names[0]}"


def _check_truncated_slices(frames: Sequence[Frame], stored: Integer[np.ndarray, "n j i"]) -> None:
    """Rejects slices that end in zeros, unless all slices end after the same full row."""
    ends = [
        _find_zero_tail(values) if frame.encoding.is_native else None
        for frame, values in zip(frames, _iterate_slices(stored), strict=True)
    ]
    columns = stored[0].shape[1]
    if len(set(ends)) == 1 and (ends[0] is None or ends[0] % columns == 0):
        return
    if truncated := [frame for frame, end in zip(frames, ends, strict=True) if end is not None]:
        raise ReadRejected(
            "pixels",
            Message(
                "{names}: breaks off into zeros in the middle of the image",
                names=_format_names([f.path for f in truncated]),
            ),
        )


def _find_zero_tail(values: Integer[np.ndarray, "j i"]) -> int | None:
    """Returns where a slice is truncated: its last tenth or more is zero, and the row before that is not; else None."""
    if values[-1].any() or not values.any():
        return None
    end = int(np.flatnonzero(values)[-1]) + 1
    last_row = values.reshape(-1)[max(0, end - values.shape[1]) : end]
    return end if end < 0.9 * values.size and np.count_nonzero(last_row) > 0.9 * len(last_row) else None


def _check_unused_bits(frame: Frame, values: Integer[np.ndarray, "j i"]) -> None:
    """Rejects values if the bits above BitsStored are neither empty nor copies of the sign bit."""
    encoding = frame.encoding
    if encoding.bits_stored == encoding.bits_allocated:
        return
    unused = values >> encoding.bits_stored
    all_ones = (1 << (encoding.bits_allocated - encoding.bits_stored)) - 1
    is_negative = (values >> (encoding.bits_stored - 1) & 1).astype(bool)
    if encoding.is_signed and is_negative.any() and not unused.any():
        message = Message(
            "{name}: negative values without a sign in their unused bits; its sign flag may be wrong",
            name=frame.path.name,
        )
        warnings.warn(message, InputWarning, stacklevel=2)
    repeats_sign = unused == np.where(is_negative, all_ones, 0)
    if not unused.any() or (encoding.is_signed and repeats_sign.all()):
        return
    if _is_overlay(values, encoding):
        message = Message(
            "an overlay lies in the bits above the {stored} of the values; it is left out", stored=encoding.bits_stored
        )
        warnings.warn(message, InputWarning, stacklevel=2)
    else:
        raise ReadRejected(
            "values",
            Message(
                "{name}: its values use more than the {stored} bits it declares; export it again",
                name=frame.path.name,
                stored=encoding.bits_stored,
            ),
        )


def _is_overlay(values: Integer[np.ndarray, "j i"], encoding: PixelEncoding) -> bool:
    """Returns whether the bits above BitsStored are flags of an overlay (PS3.5, 8.1.1) and not part of the values.

    Where such a bit changes from a pixel to the next, values that need the bit change little with it and much without
    it; values under an overlay do the opposite.
    """
    whole = values.astype(np.int64)
    low = whole & ((1 << encoding.bits_stored) - 1)
    num_changes = num_overlay = 0
    for axis in (0, 1):
        step, low_step = np.abs(np.diff(whole, axis=axis)), np.abs(np.diff(low, axis=axis))
        has_changed = np.diff(whole - low, axis=axis) != 0
        num_changes += int(np.count_nonzero(has_changed))
        num_overlay += int(np.count_nonzero(has_changed & (low_step < step)))
    return num_changes > 0 and num_overlay >= OVERLAY_SHARE * num_changes


def _extend_sign(values: Integer[np.ndarray, "j i"], encoding: PixelEncoding) -> Integer[np.ndarray, "j i"]:
    """Interprets the lowest stored bits with or without a sign."""
    width = encoding.bits_allocated // 8
    shift = encoding.bits_allocated - encoding.bits_stored
    shifted = values.astype(f"u{width}", copy=False) << np.array(shift, f"u{width}")
    return shifted.astype(f"{'i' if encoding.is_signed else 'u'}{width}", copy=False) >> shift


def _find_padding(frame: Frame, values: Integer[np.ndarray, "j i"]) -> Bool[np.ndarray, "j i"] | None:
    """Returns the padded pixels if their values lie below or above all others; else None."""
    if frame.padding is None:
        return None
    bits, is_signed = frame.encoding.bits_allocated, frame.encoding.is_signed
    low, high = (_wrap_padding_value(value, bits, is_signed) for value in frame.padding)
    is_padding = (values >= low) & (values <= high)
    others = values[~is_padding]
    is_extreme = others.size == 0 or others.min() > high or others.max() < low
    return is_padding if is_padding.any() and is_extreme else None


def _wrap_padding_value(value: int, bits: int, is_signed: bool) -> int:
    """Converts a padding value to the type of the pixels, since some writers use the other sign."""
    value %= 1 << bits
    return value - (1 << bits) if is_signed and value >= 1 << (bits - 1) else value


def _choose_dtype(frames: Sequence[Frame], stored: Integer[np.ndarray, "n j i"], background: float) -> np.dtype:
    """Returns the smallest type that holds all rescaled values and the background."""
    bounds = [background]
    for frame, values in zip(frames, _iterate_slices(stored), strict=True):
        if frame.lut is not None:
            bounds += [float(n) for n in (frame.lut.apply(values).min(), frame.lut.apply(values).max())]
        else:
            bounds += [frame.slope * int(n) + frame.intercept for n in (values.min(), values.max())]
    if max(abs(b) for b in bounds) > FLOAT32_MAX:
        raise ReadRejected("values", Message("its rescaled values overflow float32"))
    if not all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames):
        return np.dtype(np.float32)
    fits = (d for d in INTEGER_DTYPES if np.iinfo(d).min <= min(bounds) and max(bounds) <= np.iinfo(d).max)
    return np.dtype(next(fits, np.float32))


def _rescale(frame: Frame, values: Integer[np.ndarray, "j i"]) -> Real[np.ndarray, "j i"]:
    """Applies the lookup table, or slope and intercept, in integers where both are whole."""
    if frame.lut is not None:
        return frame.lut.apply(values)
    if frame.slope.is_integer() and frame.intercept.is_integer():
        return values.astype(np.int64) * int(frame.slope) + int(frame.intercept)
    return values * frame.slope + frame.intercept

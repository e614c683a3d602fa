"""Checks voxels and affines that a reader returns, and converts voxels to compact data types."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real

from medssl.arrays.disk_arrays import allocate_like, transform_slabs
from medssl.errors import BadInput, InputWarning, Message
from medssl.io.slabs.stored_values import ValueRange
from medssl.volume import Volume

SUPPORTED_DTYPES = ("uint8", "int16", "uint16", "int32", "float32")
INTEGER_DTYPES = (np.uint8, np.int16, np.uint16, np.int32)
MAX_LABELS = 1000
SPACING_LIMITS_MM = (0.005, 100.0)


def validate_volume(
    path: Path, voxels: Real[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], label: bool
) -> Volume:
    """Builds a volume from the voxels and the affine of a file, and rejects impossible ones.

    Args:
        path: The file, named in error messages.
        voxels: The values with the scale factor of the file applied.
        affine: Voxel indices to mm, RAS+.
        label: Whether the voxels are a label map of whole numbers from 0.
    """
    check_affine(path, affine)
    if label:
        return Volume(_check_label(path, voxels), affine, "label")
    values = ValueRange.measure_slabs(voxels)
    _check_finite(path, voxels.size, values)
    dtype = _choose_dtype(path, voxels.dtype, values)
    if dtype != voxels.dtype or values.num_invalid:
        convert = partial(_convert, dtype=dtype, fill=values.low)
        ordered = voxels.T  # a NIfTI file is in this order
        voxels = transform_slabs(convert, ordered, allocate_like(ordered, ordered.shape, dtype)).T
    if values.low == values.high:
        value = voxels.flat[0]
        warnings.warn(
            Message("{path.name}: every voxel is {value}", path=path, value=value), InputWarning, stacklevel=2
        )
    return Volume(voxels, affine, "a.u.")


def check_affine(path: Path, affine: Float[np.ndarray, "4 4"]) -> None:
    """Rejects an affine in mm with axes that are not perpendicular or with an implausible spacing."""
    if not np.isfinite(affine).all():
        raise BadInput(Message("{path}: its affine is not finite; write the geometry again", path=path))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((spacing >= SPACING_LIMITS_MM[0]) & (spacing <= SPACING_LIMITS_MM[1])).all():
        spacing_text = " x ".join(f"{mm:.4g}" for mm in spacing)
        raise BadInput(
            Message(
                "{path}: a spacing of {spacing_text} mm is impossible; check its unit and its header",
                path=path,
                spacing_text=spacing_text,
            )
        )
    cosines = affine[:3, :3] / spacing
    shear = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if shear > 1e-3:
        raise BadInput(
            Message(
                "{path}: its axes are sheared (cosine {shear:.4f}); resample it onto a straight grid",
                path=path,
                shear=shear,
            )
        )


def measure_distance(a: Float[np.ndarray, "4 4"], b: Float[np.ndarray, "4 4"], shape: tuple[int, int, int]) -> float:
    """Returns the largest distance between the corners of a volume under two affines."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.array(shape) - 1
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())


def list_label_values(label: Real[np.ndarray, "*n"]) -> list[int]:
    """Returns the values that occur, sorted; only voxels where the value changes are sorted, to save time."""
    flat = label.ravel(order="K")
    is_last = np.ones(flat.size, bool)
    is_last[:-1] = flat[1:] != flat[:-1]
    return [int(v) for v in np.unique(flat[is_last])]


def _check_finite(path: Path, num_voxels: int, values: ValueRange) -> None:
    """Warns of NaN and infinite values, which become the lowest finite one."""
    if values.num_invalid == num_voxels:
        raise BadInput(Message("{path}: not one voxel is a finite number; the file is damaged", path=path))
    if values.num_invalid:
        warnings.warn(
            Message(
                "{path.name}: {count} voxels are no finite numbers and became {lowest}",
                path=path,
                count=values.num_invalid,
                lowest=values.low,
            ),
            InputWarning,
            stacklevel=3,
        )


def _choose_dtype(path: Path, dtype: np.dtype, values: ValueRange) -> np.dtype:
    """Returns the type itself if it is supported, else the smallest supported one that holds the values."""
    native = dtype.newbyteorder("=")
    if native.name in SUPPORTED_DTYPES:
        return native
    smallest = _find_smallest_dtype(values)
    with np.errstate(over="ignore"):
        is_too_large = not np.isfinite(np.array([values.low, values.high]).astype(smallest)).all()
    if is_too_large:
        highest = max(abs(values.low), abs(values.high))
        raise BadInput(
            Message(
                "{path}: values up to {highest:.3g} overflow float32; check its scale factor",
                path=path,
                highest=highest,
            )
        )
    return smallest


def _find_smallest_dtype(values: ValueRange) -> np.dtype:
    """Returns the smallest integer type for whole numbers that fit into one, else float32."""
    for dtype in INTEGER_DTYPES if values.is_whole else ():
        if np.iinfo(dtype).min <= values.low and values.high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _convert(voxels: Real[np.ndarray, "*n"], dtype: np.dtype, fill: float) -> Real[np.ndarray, "*n"]:
    """Converts to a type, with `fill` in place of NaN and infinity."""
    if np.issubdtype(voxels.dtype, np.floating):
        voxels = np.where(np.isfinite(voxels), voxels, fill)
    return voxels.astype(dtype)


def _check_label(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    """Rejects label values that are not whole numbers from 0, or too many different ones."""
    whole = voxels if np.issubdtype(voxels.dtype, np.integer) else _round_to_whole(path, voxels)
    if whole.min() < 0:
        raise BadInput(
            Message(
                "{path}: a label map with negative values ({lowest:g}); labels are 0, 1, 2 ...",
                path=path,
                lowest=whole.min(),
            )
        )
    if whole.max() >= MAX_LABELS and len(list_label_values(whole)) > MAX_LABELS:
        raise BadInput(
            Message(
                "{path}: more than {limit} different labels; is this the image instead of the label map?",
                path=path,
                limit=MAX_LABELS,
            )
        )
    return whole.astype(_find_smallest_dtype(ValueRange.measure_slabs(whole)))


def _round_to_whole(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    """Rounds labels stored as floats, which may be off by rounding errors only."""
    if not np.isfinite(voxels).all():
        raise BadInput(Message("{path}: a label map with NaN or infinity; labels are whole numbers", path=path))
    whole = np.rint(voxels)
    error = np.abs(voxels - whole).max()
    if error > 1e-4:
        raise BadInput(
            Message(
                "{path}: a label map with fractions (up to {error:.3g} off a whole number); was it interpolated?",
                path=path,
                error=error,
            )
        )
    return whole

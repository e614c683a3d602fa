"""What every reader does to voxels before they leave the door."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real

from medssl.errors import BadInput, Doubt
from medssl.volume import Volume

KEPT = ("uint8", "int16", "uint16", "int32", "float32")
SMALL = (np.uint8, np.int16, np.uint16, np.int32)
LABELS = 1000
SPACING_MM = (0.005, 100.0)


def finished(path: Path, voxels: Real[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], label: bool) -> Volume:
    """A volume from another reader's voxels: a label of whole numbers, or an image in arbitrary units."""
    check_affine(path, affine)
    if label:
        return Volume(_label(path, voxels), affine, "label")
    voxels = _compact(path, _finite(path, voxels))
    if voxels.min() == voxels.max():
        warnings.warn(f"{path.name}: every voxel is {voxels.flat[0]}", Doubt, stacklevel=2)
    return Volume(voxels, affine, "a.u.")


def check_affine(path: Path, affine: Float[np.ndarray, "4 4"]) -> None:
    """Refuses an affine that is not three perpendicular axes of possible spacing, all in mm."""
    if not np.isfinite(affine).all():
        raise BadInput(f"{path}: its affine is not finite; write the geometry anew")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((spacing >= SPACING_MM[0]) & (spacing <= SPACING_MM[1])).all():
        told = " x ".join(f"{s:.4g}" for s in spacing)
        raise BadInput(f"{path}: a spacing of {told} mm is impossible; check its unit and its header")
    cosines = affine[:3, :3] / spacing
    lean = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if lean > 1e-3:
        raise BadInput(f"{path}: its axes are sheared (cosine {lean:.4f}); resample it onto a straight grid")


def smallest(voxels: Real[np.ndarray, "*n"]) -> Real[np.ndarray, "*n"]:
    """The same values in the smallest integer type that holds them all, or in float32."""
    low, high = voxels.min(), voxels.max()
    whole = np.issubdtype(voxels.dtype, np.integer)
    if whole or (np.isfinite(low) and np.isfinite(high) and (voxels == np.rint(voxels)).all()):
        for dtype in SMALL:
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return voxels.astype(dtype)
    with np.errstate(over="ignore"):  # the caller refuses what became infinite
        return voxels.astype(np.float32)


def present(label: Real[np.ndarray, "*n"]) -> list[int]:
    """The numbers that occur; looks only where they change, as a sort of all would take long."""
    flat = label.ravel(order="K")
    last = np.ones(flat.size, bool)
    last[:-1] = flat[1:] != flat[:-1]
    return [int(v) for v in np.unique(flat[last])]


def _compact(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if native.dtype.name in KEPT:
        return native
    small = smallest(native)
    if not np.isfinite(small).all():
        raise BadInput(f"{path}: values up to {np.abs(native).max():.3g} overflow; check its scale factor")
    return small


def _finite(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    if not np.issubdtype(voxels.dtype, np.floating):
        return voxels
    bad = ~np.isfinite(voxels)
    if not bad.any():
        return voxels
    if bad.all():
        raise BadInput(f"{path}: not one voxel is a finite number; the file is damaged")
    lowest = voxels[~bad].min()
    warnings.warn(f"{path.name}: {bad.sum()} voxels are no finite numbers and became {lowest}", Doubt, stacklevel=3)
    return np.where(bad, lowest, voxels)


def _label(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    whole = voxels if np.issubdtype(voxels.dtype, np.integer) else _whole(path, voxels)
    if whole.min() < 0:
        raise BadInput(f"{path}: a label with negative values ({whole.min():g}); labels are 0, 1, 2 ...")
    if whole.max() >= LABELS and len(present(whole)) > LABELS:
        raise BadInput(f"{path}: more than {LABELS} different labels; is this the image?")
    return smallest(whole)


def _whole(path: Path, voxels: Real[np.ndarray, "i j k"]) -> Real[np.ndarray, "i j k"]:
    if not np.isfinite(voxels).all():
        raise BadInput(f"{path}: a label with NaN or infinity; labels are whole numbers")
    whole = np.rint(voxels)
    off = np.abs(voxels - whole).max()
    if off > 1e-4:
        raise BadInput(f"{path}: a label with fractions (up to {off:.3g} off a whole number); was it interpolated?")
    return whole

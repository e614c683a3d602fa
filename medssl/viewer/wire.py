"""Encodes volumes for the browser: a JSON header, and raw voxels cut into axial slabs.

Voxels are RAS, little-endian int16 or uint8, i fastest, then j, then k: a slab of whole axial planes is one run of
bytes. A value is `stored * slope + intercept` in the header's unit. Nothing is resampled.
"""

import gzip
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Num, Shaped

from medssl.errors import BadInput
from medssl.render.planes import PLANES, orientation_letters
from medssl.render.windows import default_preset, window_presets
from medssl.volume import Volume

FORMAT = "medssl-volume-1"
SLAB_BYTES = 4_000_000
OBLIQUE_DEGREES = 1.0


@dataclass(frozen=True)
class EncodedVolume:
    """Voxels as whole numbers of 8 or 16 bits; `voxels * slope + intercept` gives the values back."""

    voxels: Shaped[np.ndarray, "i j k"]
    slope: float = 1.0
    intercept: float = 0.0
    exact: bool = True


def encode(volume: Volume) -> tuple[dict[str, Any], bytes]:
    """Returns the header that describes a volume to the viewer, and the bytes of all its voxels.

    Raises:
        BadInput: The volume has several channels, no finite voxel, or labels of more than 16 bits.
    """
    if volume.voxels.ndim != 3:
        raise BadInput(f"the viewer shows one channel, this volume is {volume.voxels.shape}; choose a channel first")
    ras = volume.reorient("RAS")
    stored = _store_voxels(ras)
    data = stored.voxels.tobytes(order="F")
    header = _describe_geometry(ras) | {
        "format": FORMAT,
        "unit": ras.unit,
        "dtype": stored.voxels.dtype.name,
        "slope": stored.slope,
        "intercept": stored.intercept,
        "exact": stored.exact,
        "slab": _count_slab_planes(stored.voxels),
        "sha256": hashlib.sha256(data).hexdigest(),
        "windows": [{"name": name, "low": w.low, "high": w.high} for name, w in window_presets(ras).items()],
        "window": default_preset(ras),
    }
    return header, data


def decode(header: dict[str, Any], data: bytes) -> Volume:
    """Returns the RAS volume of a header and its bytes; the values are float32 unless they were stored unchanged."""
    stored = np.frombuffer(data, np.dtype(header["dtype"]).newbyteorder("<")).reshape(header["shape"], order="F")
    if (header["slope"], header["intercept"]) != (1.0, 0.0):
        stored = (stored * header["slope"] + header["intercept"]).astype(np.float32)
    return Volume(stored, np.array(header["affine"], np.float64), header["unit"])


def list_slabs(header: dict[str, Any]) -> list[tuple[int, int]]:
    """Lists the axial ranges (start, stop) that the viewer requests, so that a server can compress them in advance."""
    planes, step = header["shape"][2], header["slab"]
    return [(k, min(k + step, planes)) for k in range(0, planes, step)]


def compress_slab(header: dict[str, Any], data: bytes, start: int, stop: int) -> bytes:
    """Returns the gzipped bytes of the axial planes from `start` up to, but not including, `stop`."""
    i, j, k = header["shape"]
    if not 0 <= start < stop <= k:
        raise BadInput(f"axial planes {start} to {stop}: this volume has the planes 0 to {k}")
    plane = i * j * np.dtype(header["dtype"]).itemsize
    return gzip.compress(data[start * plane : stop * plane], compresslevel=1, mtime=0)


def _describe_geometry(ras: Volume) -> dict[str, Any]:
    return {
        "shape": list(ras.shape),
        "spacing_mm": list(ras.spacing_mm()),
        "affine": ras.affine.tolist(),
        "oblique_degrees": _measure_obliquity(ras.affine),
        "letters": {plane: list(orientation_letters(ras.affine, plane)) for plane in PLANES},
    }


def _measure_obliquity(affine: Float[np.ndarray, "4 4"]) -> float:
    """Returns the largest angle between a voxel axis and its anatomical axis; 0 below OBLIQUE_DEGREES."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    degrees = math.degrees(math.acos(min(1.0, float(np.diag(directions).min()))))
    return degrees if degrees >= OBLIQUE_DEGREES else 0.0


def _store_voxels(volume: Volume) -> EncodedVolume:
    voxels = volume.voxels
    if volume.unit == "probability":
        return EncodedVolume(np.rint(np.clip(voxels, 0, 1) * 255).astype(np.uint8), slope=1 / 255, exact=False)
    if volume.unit == "label" and voxels.min() >= 0 and voxels.max() <= 255:
        return EncodedVolume(voxels.astype(np.uint8))
    low, high = _find_range(voxels)
    if low >= -32768 and high <= 32767 and _has_whole_numbers(voxels):
        return EncodedVolume(voxels.astype("<i2"))
    if volume.unit == "label":
        raise BadInput(f"labels from {low:g} to {high:g} do not fit the viewer; number them from 1")
    slope = (high - low) / 65534 or 1.0
    steps = np.rint((np.nan_to_num(voxels, nan=low, posinf=high, neginf=low) - low) / slope) - 32767
    return EncodedVolume(steps.astype("<i2"), slope=slope, intercept=low + 32767 * slope, exact=False)


def _find_range(voxels: Num[np.ndarray, "i j k"]) -> tuple[float, float]:
    finite = voxels[np.isfinite(voxels)] if np.issubdtype(voxels.dtype, np.floating) else voxels
    if not finite.size:
        raise BadInput("every voxel of this volume is NaN or infinite; there is nothing to show")
    return float(finite.min()), float(finite.max())


def _has_whole_numbers(voxels: Num[np.ndarray, "i j k"]) -> bool:
    return np.issubdtype(voxels.dtype, np.integer) or bool((voxels == np.rint(voxels)).all())


def _count_slab_planes(voxels: Shaped[np.ndarray, "i j k"]) -> int:
    """Returns how many axial planes take about SLAB_BYTES."""
    return max(1, min(voxels.shape[2], SLAB_BYTES // (voxels.shape[0] * voxels.shape[1] * voxels.itemsize)))

"""Encodes volumes for the browser: a JSON header, and raw voxels cut into axial slabs.

Voxels are RAS, little-endian int16 or uint8, i fastest, then j, then k: a slab of whole axial planes is one run of
bytes. A value is `stored * slope + intercept` in the header's unit. Nothing is resampled.
"""

import hashlib
import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from medssl.errors import BadInput
from medssl.io.slabs.slab_file import SlabTable, count_slab_planes, list_ranges, pack
from medssl.io.slabs.stored_values import StoredValues, ValueRange
from medssl.render.planes import PLANES, orientation_letters
from medssl.render.windows import default_preset, window_presets
from medssl.volume import Unit, Volume

FORMAT = "medssl-volume-1"
OBLIQUE_DEGREES = 1.0


def encode(volume: Volume) -> tuple[dict[str, Any], bytes]:
    """Returns the header that describes a volume to the viewer, and the bytes of all its voxels.

    Raises:
        BadInput: The volume has several channels, no finite voxel, or labels of more than 16 bits.
    """
    if volume.voxels.ndim != 3:
        raise BadInput(f"the viewer shows one channel, this volume is {volume.voxels.shape}; choose a channel first")
    ras = volume.reorient("RAS")
    values = ValueRange.measure(ras.voxels)
    stored = StoredValues.choose(ras.unit, values)
    data = stored.encode(ras.voxels, values.low).tobytes(order="F")
    return describe(ras, ras.shape, stored, hashlib.sha256(data).hexdigest()), data


@runtime_checkable
class Slabs(Protocol):
    """A volume in slabs, such as a `SlabFile`."""

    @property
    def table(self) -> SlabTable:
        """The description of the volume."""

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Maps a voxel index to mm, RAS+."""

    def read_sample(self) -> Shaped[np.ndarray, "n"]:
        """Returns evenly spaced values of the whole volume."""


def describe_slabs(slabs: Slabs, unit: Unit) -> dict[str, Any]:
    """Returns the header of a slab file; the window presets follow from its sample of values."""
    sample = Volume(slabs.read_sample().reshape(-1, 1, 1), slabs.affine, unit)
    return describe(sample, slabs.table.shape, slabs.table.values, slabs.table.sha256)


def describe(values: Volume, shape: tuple[int, int, int], stored: StoredValues, sha256: str) -> dict[str, Any]:
    """Returns the header of a volume.

    Args:
        values: The RAS volume, or a sample of its values with the affine of the volume.
        shape: The number of voxels along i, j, k.
        stored: How the values are stored.
        sha256: What identifies the stored voxels.
    """
    return _describe_geometry(shape, values.affine) | {
        "format": FORMAT,
        "unit": values.unit,
        "dtype": stored.dtype,
        "slope": stored.slope,
        "intercept": stored.intercept,
        "exact": stored.exact,
        "slab": count_slab_planes(shape, stored.dtype),
        "sha256": sha256,
        "windows": [{"name": name, "low": w.low, "high": w.high} for name, w in window_presets(values).items()],
        "window": default_preset(values),
    }


def decode(header: dict[str, Any], data: bytes) -> Volume:
    """Returns the RAS volume of a header and its bytes; the values are float32 unless they were stored unchanged."""
    stored = StoredValues(header["dtype"], header["slope"], header["intercept"])
    voxels = np.frombuffer(data, stored.little_endian).reshape(header["shape"], order="F")
    return Volume(stored.decode(voxels), np.array(header["affine"], np.float64), header["unit"])


def list_slabs(header: dict[str, Any]) -> list[tuple[int, int]]:
    """Lists the axial ranges (start, stop) that the viewer requests, so that a server can compress them in advance."""
    return list_ranges(header["shape"][2], header["slab"])


def compress_slab(header: dict[str, Any], data: bytes, start: int, stop: int) -> bytes:
    """Returns the gzipped bytes of the axial planes from `start` up to, but not including, `stop`."""
    i, j, k = header["shape"]
    if not 0 <= start < stop <= k:
        raise BadInput(f"axial planes {start} to {stop}: this volume has the planes 0 to {k}")
    voxels: Shaped[np.ndarray, "i j k"] = np.frombuffer(data, header["dtype"]).reshape((i, j, k), order="F")
    return pack(voxels[..., start:stop])


def _describe_geometry(shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "spacing_mm": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "affine": affine.tolist(),
        "oblique_degrees": _measure_obliquity(affine),
        "letters": {plane: list(orientation_letters(affine, plane)) for plane in PLANES},
    }


def _measure_obliquity(affine: Float[np.ndarray, "4 4"]) -> float:
    """Returns the largest angle between a voxel axis and its anatomical axis; 0 below OBLIQUE_DEGREES."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    degrees = math.degrees(math.acos(min(1.0, float(np.diag(directions).min()))))
    return degrees if degrees >= OBLIQUE_DEGREES else 0.0

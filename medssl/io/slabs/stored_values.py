"""Chooses whole numbers of 8 or 16 bits that represent the values of a volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Num, Shaped

from medssl.arrays.disk_arrays import iterate_slabs
from medssl.errors import BadInput
from medssl.volume import Unit


@dataclass(frozen=True)
class ValueRange:
    """The values of a volume, or of a part of it.

    Args:
        low: The smallest finite value; infinite if there is none.
        high: The largest finite value.
        is_whole: Whether all finite values are whole numbers.
        num_invalid: How many values are NaN or infinite.
    """

    low: float = np.inf
    high: float = -np.inf
    is_whole: bool = True
    num_invalid: int = 0

    @classmethod
    def measure(cls, voxels: Num[np.ndarray, "*n"]) -> "ValueRange":
        """Returns the range of some voxels."""
        if np.issubdtype(voxels.dtype, np.integer):
            return cls(float(voxels.min()), float(voxels.max()))
        is_finite = np.isfinite(voxels)
        finite = voxels if is_finite.all() else voxels[is_finite]
        num_invalid = voxels.size - finite.size
        if not finite.size:
            return cls(num_invalid=num_invalid)
        is_whole = bool((finite == np.rint(finite)).all())
        return cls(float(finite.min()), float(finite.max()), is_whole, num_invalid)

    @classmethod
    def measure_slabs(cls, voxels: Num[np.ndarray, "*c i j k"]) -> "ValueRange":
        """Returns the range of all voxels of a volume, slab by slab."""
        values = cls()
        for index in iterate_slabs(voxels):
            values = values.join(cls.measure(voxels[index]))
        return values

    def join(self, other: "ValueRange") -> "ValueRange":
        """Returns the range of both parts together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return ValueRange(low, high, self.is_whole and other.is_whole, self.num_invalid + other.num_invalid)


@dataclass(frozen=True)
class StoredValues:
    """How values are stored; `stored * slope + intercept` gives them back.

    Args:
        dtype: `uint8` or `int16`.
        slope: The difference of two values that are stored as consecutive numbers.
        intercept: The value that is stored as 0.
        exact: Whether every value comes back unchanged.
    """

    dtype: str
    slope: float = 1.0
    intercept: float = 0.0
    exact: bool = True

    @classmethod
    def choose(cls, unit: Unit, values: ValueRange) -> "StoredValues":
        """Returns how to store values of a unit; raises BadInput if none is finite, or labels have over 16 bits."""
        if unit == "probability":
            return cls("uint8", slope=1 / 255, exact=False)
        low, high = values.low, values.high
        if low > high:
            raise BadInput("every voxel of this volume is NaN or infinite; there is nothing to show")
        if unit == "label" and low >= 0 and high <= 255:
            return cls("uint8")
        if low >= -32768 and high <= 32767 and values.is_whole:
            return cls("int16")
        if unit == "label":
            raise BadInput(f"labels from {low:g} to {high:g} do not fit the viewer; number them from 1")
        slope = (high - low) / 65534 or 1.0
        return cls("int16", slope=slope, intercept=low + 32767 * slope, exact=False)

    def encode(self, voxels: Num[np.ndarray, "*n"], fill: float = 0.0) -> Shaped[np.ndarray, "*n"]:
        """Returns the numbers that are stored for some values, with `fill` in place of NaN and infinity."""
        if np.issubdtype(voxels.dtype, np.floating):
            voxels = np.nan_to_num(voxels, nan=fill, posinf=fill, neginf=fill)
        if not self.exact:
            voxels = np.rint((voxels - self.intercept) / self.slope)
            voxels = np.clip(voxels, 0, 255) if self.dtype == "uint8" else np.clip(voxels, -32767, 32767)
        return voxels.astype(self.little_endian)

    def decode(self, stored: Shaped[np.ndarray, "*n"]) -> Num[np.ndarray, "*n"]:
        """Returns the values, as float32 unless they were stored unchanged."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        return (stored * self.slope + self.intercept).astype(np.float32)

    @property
    def little_endian(self) -> np.dtype:
        """The type of the bytes."""
        return np.dtype(self.dtype).newbyteorder("<")

"""The preprocessing of a MONAI bundle: the transforms of MONAI that a scan passes before its network.

Each step computes what the transform of the same name computes, https://docs.monai.io/en/stable/transforms.html, in
slabs, so that a scan on disk stays there. A transform with an argument that is not listed here is refused.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped
from pydantic import BeforeValidator, Field, PositiveFloat, field_validator

from medssl.arrays.disk_arrays import allocate_like, iterate_slabs, transform_slabs
from medssl.settings import Settings
from medssl.volume import AXES, Volume

SAME_GRID_MM = 1e-3  # MONAI leaves a scan as it is whose grid differs less


def _take_first(value: Any) -> Any:
    """Returns the first of the values for several keys, which is that of the image."""
    return value[0] if isinstance(value, list) and value else value


def _as_cube(value: Any) -> Any:
    return [value] * 3 if isinstance(value, int | float) else value


class OrientationStep(Settings):
    """Turns the axes of a scan, without interpolation."""

    name: Literal["Orientationd"] = Field("Orientationd", description="name of the transform in MONAI")
    axcodes: str = Field("RAS", description="directions in which the axes grow")
    labels: None = Field(None, description="other letters of the directions")
    as_closest_canonical: Literal[False] = Field(False, description="use RAS whatever the codes are")

    @field_validator("axcodes")
    @classmethod
    def _check_codes(cls, codes: str) -> str:
        if sorted(code in low + high for low, high in AXES for code in codes) != [False] * 6 + [True] * 3:
            raise ValueError(f"{codes!r} is no orientation; expected one letter each of L/R, P/A and I/S")
        return codes

    def apply(self, volume: Volume) -> Volume:
        """Returns the turned scan."""
        return volume.reorient(self.axcodes, copy=False)


class SpacingStep(Settings):
    """Interpolates a scan at another spacing, linearly and without a filter against aliasing; the first voxel stays."""

    name: Literal["Spacingd"] = Field("Spacingd", description="name of the transform in MONAI")
    pixdim: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], BeforeValidator(_as_cube)] = Field(
        description="new spacing along the axes in mm"
    )
    mode: Annotated[Literal["bilinear"], BeforeValidator(_take_first)] = Field("bilinear", description="interpolation")
    padding_mode: Annotated[Literal["border"], BeforeValidator(_take_first)] = Field(
        "border", description="values beyond the border"
    )
    align_corners: Annotated[bool, BeforeValidator(_take_first)] = Field(
        False, description="changes nothing for a grid that is given in mm"
    )
    diagonal: Literal[False] = Field(False, description="drop the directions of the scan")
    scale_extent: Literal[False] = Field(False, description="keep the outer border instead of the first voxel")

    def apply(self, volume: Volume) -> Volume:
        """Returns the scan at the new spacing."""
        scale = np.asarray(self.pixdim) / volume.spacing_mm()
        i, j, k = np.round((np.asarray(volume.shape) - 1) / scale + 1).astype(int)
        affine = volume.affine @ np.diag([*scale, 1.0])
        if volume.shape == (i, j, k) and np.allclose(affine, volume.affine, atol=SAME_GRID_MM):
            return volume
        grid = Volume(np.broadcast_to(np.float32(0), (i, j, k)), affine, "a.u.")
        return volume.resample_to(grid, order=1, fill=None, is_filtered=False)


class IntensityRangeStep(Settings):
    """Maps one range of values to another one."""

    name: Literal["ScaleIntensityRanged"] = Field("ScaleIntensityRanged", description="name of the transform in MONAI")
    a_min: float = Field(description="value that becomes b_min")
    a_max: float = Field(description="value that becomes b_max")
    b_min: float = Field(0.0, description="lower end of the new range")
    b_max: float = Field(1.0, description="upper end of the new range")
    clip: bool = Field(False, description="clip to the new range")

    @field_validator("a_max")
    @classmethod
    def _check_range(cls, a_max: float, info: Any) -> float:
        if a_max == info.data.get("a_min"):
            raise ValueError(f"a_min and a_max are both {a_max}; expected a range")
        return a_max

    def apply(self, volume: Volume) -> Volume:
        """Returns the scan with the new values."""
        slope = (self.b_max - self.b_min) / (self.a_max - self.a_min)

        def scale(voxels: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
            scaled = (voxels - np.float32(self.a_min)) * np.float32(slope) + np.float32(self.b_min)
            return np.clip(scaled, self.b_min, self.b_max, out=scaled) if self.clip else scaled

        return _map_values(volume, [scale] * len(_split_channels(volume)))


class ZScoreStep(Settings):
    """Subtracts the mean of a scan and divides by its standard deviation."""

    name: Literal["NormalizeIntensityd"] = Field("NormalizeIntensityd", description="name of the transform in MONAI")
    nonzero: bool = Field(False, description="measure and change only values other than 0")
    channel_wise: bool = Field(False, description="each channel by its own values")
    subtrahend: float | None = Field(None, description="replaces the mean")
    divisor: float | None = Field(None, description="replaces the standard deviation")

    def apply(self, volume: Volume) -> Volume:
        """Returns the scan with the new values."""
        channels = _split_channels(volume)
        groups = [[channel] for channel in channels] if self.channel_wise else [channels] * len(channels)
        return _map_values(volume, [self._make_map(*self._measure(group)) for group in groups])

    def _measure(self, channels: list[np.ndarray]) -> tuple[float, float]:
        """Returns mean and standard deviation; where nothing can be measured, those that change nothing."""
        count, total, squares = 0, 0.0, 0.0
        for channel in channels:
            for index in iterate_slabs(channel):
                values = channel[index].astype(np.float64)
                values = values[values != 0] if self.nonzero else values
                count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
        if not count:
            return 0.0, 1.0
        mean = total / count if self.subtrahend is None else self.subtrahend
        deviation = np.sqrt(max(0.0, squares / count - (total / count) ** 2)) if self.divisor is None else self.divisor
        return float(mean), float(deviation) or 1.0

    def _make_map(self, mean: float, deviation: float) -> Callable[[np.ndarray], np.ndarray]:
        def scale(voxels: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
            scaled = (voxels - np.float32(mean)) / np.float32(deviation)
            return np.where(voxels == 0, voxels, scaled) if self.nonzero else scaled

        return scale


class MinMaxStep(Settings):
    """Maps the smallest and the largest value of a scan to a range."""

    name: Literal["ScaleIntensityd"] = Field("ScaleIntensityd", description="name of the transform in MONAI")
    minv: float = Field(0.0, description="lower end of the range")
    maxv: float = Field(1.0, description="upper end of the range")
    factor: None = Field(None, description="scale by a factor instead")
    channel_wise: bool = Field(False, description="each channel by its own values")

    def apply(self, volume: Volume) -> Volume:
        """Returns the scan with the new values."""
        channels = _split_channels(volume)
        ranges = [_measure_range(channel) for channel in channels]
        whole = min(low for low, _ in ranges), max(high for _, high in ranges)
        return _map_values(volume, [self._make_map(*(limits if self.channel_wise else whole)) for limits in ranges])

    def _make_map(self, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
        def scale(voxels: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
            if low == high:
                return voxels * np.float32(self.minv)
            slope = np.float32((self.maxv - self.minv) / (high - low))
            return (voxels - np.float32(low)) * slope + np.float32(self.minv)

        return scale


BundleStep = Annotated[
    OrientationStep | SpacingStep | IntensityRangeStep | ZScoreStep | MinMaxStep, Field(discriminator="name")
]
STEPS: dict[str, type[Settings]] = {
    step.model_fields["name"].default: step
    for step in (OrientationStep, SpacingStep, IntensityRangeStep, ZScoreStep, MinMaxStep)
}


def to_float32(volume: Volume) -> Volume:
    """Returns a volume with 32-bit values, as MONAI reads it."""
    return _map_values(volume, [lambda voxels: voxels] * len(_split_channels(volume)))


def _split_channels(volume: Volume) -> list[np.ndarray]:
    return [*(volume.voxels if volume.voxels.ndim == 4 else volume.voxels[None])]


def _measure_range(channel: Shaped[np.ndarray, "i j k"]) -> tuple[float, float]:
    lows, highs = zip(*((channel[index].min(), channel[index].max()) for index in iterate_slabs(channel)), strict=True)
    return float(min(lows)), float(max(highs))


def _map_values(volume: Volume, functions: list[Callable[[np.ndarray], np.ndarray]]) -> Volume:
    """Returns a volume in arbitrary units with the 32-bit values that one function for each channel returns."""
    voxels = volume.voxels if volume.voxels.ndim == 4 else volume.voxels[None]
    mapped = allocate_like(voxels, voxels.shape, np.float32)
    for function, channel, target in zip(functions, voxels, mapped, strict=True):
        transform_slabs(partial(_apply_to_float32, function), channel, target)
    return Volume(mapped if volume.voxels.ndim == 4 else mapped[0], volume.affine, "a.u.")


def _apply_to_float32(
    function: Callable[[np.ndarray], np.ndarray], slab: Shaped[np.ndarray, "*n"]
) -> Float32[np.ndarray, "*n"]:
    return function(slab.astype(np.float32, copy=False))

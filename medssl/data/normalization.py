"""Normalizes scanner values to network input in [0, 1]."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int16, Real, Shaped
from pydantic import Field, model_validator
from scipy import ndimage

from medssl.arrays.disk_arrays import allocate_like, release_pages, transform_slabs
from medssl.arrays.resampling import to_contiguous
from medssl.errors import BadInput
from medssl.settings import Settings
from medssl.volume import Spacing, Unit, Volume

AIR_HU = -1024
TISSUE_HU = -500
MAX_SAMPLES_PER_AXIS = 96  # voxels along an axis that suffice for percentiles and a body mask
DECILES = tuple(range(10, 100, 10))
# Every value that a stored MR voxel can have.
FLOAT16_VALUES = np.nan_to_num(np.arange(1 << 16).astype(np.uint16).view(np.float16), posinf=8, neginf=-8).astype(
    np.float32
)


class IntensityNormalization(Settings):
    """Maps CT through a fixed window and every other image through the percentiles of its own body.

    HU mean the same in every CT, so that one window serves all of them; it is applied when voxels are read. An MR has
    a scale of its own, so that its percentiles are mapped to 0 and 1 when it is stored. The unit of the volume
    decides which of the two applies, so that training and prediction cannot differ. Channels that mix CT and MR have
    no common unit: `hu_channels` lists those that are windowed.

    The default window is wide and the same for every store, so that weights of one store fit another. It is the one of
    Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis, 2022,
    https://arxiv.org/abs/2111.14791. With `medssl ingest --normalization auto` the window and the landmarks are
    fitted to the training scans instead. The deciles of each MR are then mapped to the landmarks, linearly in
    between, so that one tissue has one value in all scans: Nyul, Udupa and Zhang, New variants of a method of MRI
    scale standardization, 2000, https://doi.org/10.1109/42.836373.
    """

    window_hu: tuple[float, float] = Field((-1000.0, 1000.0), description="HU mapped to 0 and to 1 in CT")
    percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="percentiles, 0 to 100, of the body mapped to 0 and to 1 in other images"
    )
    hu_channels: tuple[int, ...] = Field((), description="indices, from 0, of CT channels that are mixed with MR")
    landmarks: tuple[tuple[float, ...], ...] = Field(
        (), description="value, 0 to 1, that each decile of the body is mapped to, in each channel; empty: no mapping"
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> "IntensityNormalization":
        if self.window_hu[0] >= self.window_hu[1] or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("window_hu and percentiles must increase, and percentiles must lie within 0 and 100")
        if any(len(row) not in (0, len(DECILES)) or list(row) != sorted(row) for row in self.landmarks):
            raise ValueError(f"landmarks must be {len(DECILES)} increasing numbers for each channel, or none")
        return self

    def prepare(self, volume: Volume, spacing_mm: Spacing | None) -> Volume:
        """Converts a volume to the form in which it is stored: RAS, resampled, int16 HU or float16 about [0, 1].

        Args:
            volume: A scan as it was read.
            spacing_mm: Target spacing along i, j, k; None keeps the volume's own.
        """
        is_whole_hu = volume.unit == "HU" and np.issubdtype(volume.voxels.dtype, np.integer)
        volume = volume.reorient("RAS", copy=False)
        if not is_whole_hu:
            volume = replace(volume, voxels=_transform(_to_float32, volume.voxels, np.float32))
        if spacing_mm is not None and not np.allclose(spacing_mm, volume.spacing_mm(), rtol=1e-3):
            volume = volume.resample(spacing_mm, order=1)
        if volume.unit == "HU":
            return replace(volume, voxels=_transform(_round_to_int16, volume.voxels, np.int16))
        channels = volume.voxels if volume.voxels.ndim == 4 else volume.voxels[None]
        hu_channels = self.hu_channels if len(channels) > 1 else ()
        ranges = [
            self.window_hu if c in hu_channels else self._measure_body_range(channel)
            for c, channel in enumerate(channels)
        ]
        scaled = allocate_like(channels, channels.shape, np.float16)
        for channel, (low, high), target in zip(channels, ranges, scaled, strict=True):
            transform_slabs(partial(_rescale, low=low, high=high), channel, target)
        return replace(volume, voxels=scaled if volume.voxels.ndim == 4 else scaled[0], unit="a.u.")

    def storage_parameters(self) -> dict[str, object]:
        """Returns the fields that stored voxels depend on.

        The landmarks, and the window unless channels are mixed, are applied only when voxels are read.
        """
        return self.model_dump(exclude={"landmarks"} if self.hu_channels else {"landmarks", "window_hu"})

    def apply(
        self, voxels: Shaped[np.ndarray, "*n"], unit: Unit, deciles: Float32[np.ndarray, "c d"] | None = None
    ) -> Float32[np.ndarray, "*n"]:
        """Converts stored voxels to network input in [0, 1].

        Args:
            voxels: All or some voxels of a prepared volume.
            unit: Unit of the prepared volume.
            deciles: Deciles of the whole volume, which landmarks require; see `compute_deciles`.
        """
        if self.landmarks and unit != "HU":
            return self._map_to_landmarks(voxels, deciles)
        x = voxels.astype(np.float32)
        if unit == "HU":
            low, high = self.window_hu
            x -= np.float32(low)
            x /= np.float32(high - low)
        return np.clip(x, 0, 1, out=x)

    def prepare_input(self, volume: Volume, spacing_mm: Spacing | None) -> Volume:
        """Converts a scan to network input in RAS, exactly as if it came from a store.

        Args:
            volume: A scan as it was read.
            spacing_mm: Target spacing along i, j, k; None keeps the volume's own.
        """
        prepared = self.prepare(volume, spacing_mm)
        deciles = compute_deciles(prepared) if self.landmarks and prepared.unit != "HU" else None
        apply = partial(self.apply, unit=prepared.unit, deciles=deciles)
        return replace(prepared, voxels=_transform(apply, prepared.voxels, np.float32), unit="a.u.")

    def require_same(self, other: "IntensityNormalization") -> None:
        """Raises BadInput if data were prepared with another normalization than the weights, which have this one."""
        if self != other:
            raise BadInput(
                f"the weights were trained with normalization {self}, the data have {other}; ingest the scans with "
                "the normalization of the weights (`medssl ingest --normalization RUN`), or override with "
                "allow_normalization_mismatch=true"
            )

    def _map_to_landmarks(
        self, voxels: Shaped[np.ndarray, "*n"], deciles: Float32[np.ndarray, "c d"] | None
    ) -> Float32[np.ndarray, "*n"]:
        """Maps the deciles of each channel to the landmarks, and 0 and 1 to themselves."""
        if deciles is None or len(deciles) != len(self.landmarks):
            raise BadInput(
                f"the normalization has landmarks for {len(self.landmarks)} channels, the scan has deciles of "
                f"{0 if deciles is None else len(deciles)}; ingest it again into a new folder"
            )
        channels = voxels.reshape(len(deciles), -1)
        mapped = [_map_piecewise(c, *rows) for c, *rows in zip(channels, deciles, self.landmarks, strict=True)]
        return np.stack(mapped).reshape(voxels.shape)

    def _measure_body_range(self, channel: Float32[np.ndarray, "i j k"]) -> tuple[float, float]:
        sample = subsample(channel)
        low, high = np.percentile(sample[body_mask(sample, "a.u.")], self.percentiles)
        release_pages(channel)
        return float(low), float(high)


def _transform(
    function: Callable[[np.ndarray], np.ndarray], voxels: Shaped[np.ndarray, "*c i j k"], dtype: type
) -> Shaped[np.ndarray, "*c i j k"]:
    """Applies a function to a volume slab by slab; the result lies on disk if the volume does, else in memory."""
    return transform_slabs(function, voxels, allocate_like(voxels, voxels.shape, dtype))


def _to_float32(voxels: Real[np.ndarray, "*c i j k"]) -> Float32[np.ndarray, "*c i j k"]:
    return to_contiguous(voxels).astype(np.float32, copy=False)


def _round_to_int16(voxels: Real[np.ndarray, "*c i j k"]) -> Int16[np.ndarray, "*c i j k"]:
    """Returns the nearest 16-bit integers."""
    if voxels.dtype == np.int16:
        return to_contiguous(voxels)
    rounded = np.rint(voxels)
    return np.clip(rounded, -32768, 32767, out=rounded).astype(np.int16)


def _rescale(channel: Float32[np.ndarray, "i j k"], low: float, high: float) -> Float16[np.ndarray, "i j k"]:
    """Maps `low` to 0 and `high` to 1, keeping values beyond them up to the range of -8 to 8."""
    span = max(high - low, 1e-6 * abs(high), 1e-12)
    return np.clip((channel - np.float32(low)) / np.float32(span), -8, 8).astype(np.float16)


def compute_deciles(volume: Volume) -> Float32[np.ndarray, "c d"]:
    """Computes the deciles of the body in each channel of a prepared image in arbitrary units."""
    samples = [subsample(channel) for channel in volume.voxels.reshape(-1, *volume.shape)]
    deciles = np.stack([np.percentile(s[body_mask(s, "a.u.")], DECILES) for s in samples]).astype(np.float32)
    release_pages(volume.voxels)
    return deciles


def _map_piecewise(
    channel: Float16[np.ndarray, "n"], deciles: Float32[np.ndarray, "d"], landmarks: tuple[float, ...]
) -> Float32[np.ndarray, "n"]:
    """Maps deciles to landmarks with linear pieces, or only clips to [0, 1] without landmarks.

    A table of all half-precision values is ten times as fast as interpolating every voxel.
    """
    if not landmarks:
        return np.clip(channel.astype(np.float32), 0, 1)
    knots = np.maximum.accumulate([0, *deciles.clip(0, 1), 1]) + 1e-6 * np.arange(len(deciles) + 2)
    table = np.interp(FLOAT16_VALUES, knots, (0, *landmarks, 1)).astype(np.float32)
    return table[channel.view(np.uint16)]


def subsample(voxels: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "p q r"]:
    """Returns every n-th voxel along each axis, at most MAX_SAMPLES_PER_AXIS of them."""
    i, j, k = subsample_strides(voxels.shape)
    return voxels[::i, ::j, ::k]


def subsample_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the stride of `subsample` along each axis of a volume of this shape."""
    return tuple(-(-n // MAX_SAMPLES_PER_AXIS) for n in shape)


def body_mask(voxels: Shaped[np.ndarray, "i j k"], unit: Unit) -> Bool[np.ndarray, "i j k"]:
    """Segments the body: tissue and, in CT, air that tissue encloses in an axial plane."""
    if unit != "HU":
        dark, bright = (float(v) for v in np.percentile(voxels, (0.1, 99)))
        return voxels > dark + 0.1 * (bright - dark) if bright > dark else np.ones(voxels.shape, bool)
    in_plane = ndimage.generate_binary_structure(3, 1) & np.array([0, 1, 0], bool)  # neighbours within a plane only
    air, _ = ndimage.label(voxels <= TISSUE_HU, in_plane)
    border = np.unique(np.concatenate([air[[0, -1]].ravel(), air[:, [0, -1]].ravel()]))
    return ~np.isin(air, border[border > 0])

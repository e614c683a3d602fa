"""Recipe: how scanner values become the network's input in [0, 1]."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int16, Shaped
from pydantic import model_validator
from scipy import ndimage

from medssl.errors import BadInput
from medssl.settings import Settings
from medssl.volume import Spacing, Unit, Volume

AIR_HU = -1024
TISSUE_HU = -500
SAMPLE = 96  # voxels a side that are enough to measure percentiles and a body mask on


class Recipe(Settings):
    """CT is stored as HU and windowed when read; all else is stored with its body's percentiles brought to 0 and 1.

    A CT window holds for all scans, as HU mean the same in each; an MR has a scale of its own, and so have its
    percentiles. The default window is wide and the same for every store, so that weights of one fit another;
    `medssl ingest --window-hu auto` fits it to a pool, and the store keeps what came out.

    The volume's unit decides, so that what is prepared for training and for prediction cannot differ. Channels that
    mix CT and MR have no common unit; `hu_channels` says which of them are windowed nevertheless.
    The wide window is that of Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image
    Analysis, 2022, https://arxiv.org/abs/2111.14791.
    """

    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    hu_channels: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> "Recipe":
        if self.window_hu[0] >= self.window_hu[1] or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("window_hu and percentiles go from low to high, percentiles within 0 and 100")
        return self

    def prepare(self, volume: Volume, spacing_mm: Spacing | None) -> Volume:
        """A volume as the store keeps it: RAS, at `spacing_mm` (None: its own), int16 HU or float16 about [0, 1]."""
        volume = volume.oriented("RAS")
        volume = replace(volume, voxels=volume.voxels.astype(np.float32, copy=False))
        if spacing_mm is not None and not np.allclose(spacing_mm, volume.spacing_mm(), rtol=1e-3):
            volume = volume.resample(spacing_mm, order=1)
        if volume.unit == "HU":
            return replace(volume, voxels=_hounsfield(volume.voxels))
        channels = volume.voxels.reshape(-1, *volume.shape)
        hu = self.hu_channels if len(channels) > 1 else ()
        ranges = [self.window_hu if c in hu else self._body_range(channel) for c, channel in enumerate(channels)]
        scaled = np.stack([_scaled(channel, *range_) for channel, range_ in zip(channels, ranges, strict=True)])
        return replace(volume, voxels=scaled.reshape(volume.voxels.shape))

    def stored(self) -> dict[str, object]:
        """What stored voxels depend on: the window is laid over HU when they are read, unless channels are mixed."""
        return self.model_dump(exclude=set() if self.hu_channels else {"window_hu"})

    def apply(self, voxels: Shaped[np.ndarray, "*n"], unit: Unit) -> Float32[np.ndarray, "*n"]:
        """Stored voxels -> the network's input in [0, 1]."""
        x = voxels.astype(np.float32)
        if unit == "HU":
            low, high = self.window_hu
            x -= np.float32(low)
            x /= np.float32(high - low)
        return np.clip(x, 0, 1, out=x)

    def require(self, other: "Recipe") -> None:
        """Refuses data that were made by another recipe than these weights'."""
        if self != other:
            raise BadInput(
                f"two recipes, {self} of the weights against {other} of the data; prepare the scans anew with that of "
                "the weights (`medssl ingest --window-hu LOW,HIGH`), or override with allow_recipe_mismatch=true"
            )

    def _body_range(self, channel: Float32[np.ndarray, "i j k"]) -> tuple[float, float]:
        thin = thinned(channel)
        low, high = np.percentile(thin[body(thin, "a.u.")], self.percentiles)
        return float(low), float(high)


def _hounsfield(voxels: Float32[np.ndarray, "*c i j k"]) -> Int16[np.ndarray, "*c i j k"]:
    whole = np.rint(voxels)
    return np.clip(whole, -32768, 32767, out=whole).astype(np.int16)


def _scaled(channel: Float32[np.ndarray, "i j k"], low: float, high: float) -> Float16[np.ndarray, "i j k"]:
    """`low` at 0 and `high` at 1; what lies beyond is kept some way, for half precision to hold."""
    span = max(high - low, 1e-6 * abs(high), 1e-12)
    return np.clip((channel - np.float32(low)) / np.float32(span), -8, 8).astype(np.float16)


def thinned(voxels: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "p q r"]:
    """Every n-th voxel of each axis, few enough to measure on."""
    i, j, k = thinning(voxels.shape)
    return voxels[::i, ::j, ::k]


def thinning(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The steps that `thinned` takes along each axis."""
    return tuple(-(-n // SAMPLE) for n in shape)


def body(voxels: Shaped[np.ndarray, "i j k"], unit: Unit) -> Bool[np.ndarray, "i j k"]:
    """Where the patient is: tissue, and the air that tissue encloses in an axial plane of a CT."""
    if unit != "HU":
        dark, bright = (float(v) for v in np.percentile(voxels, (0.1, 99)))
        return voxels > dark + 0.1 * (bright - dark) if bright > dark else np.ones(voxels.shape, bool)
    cross = ndimage.generate_binary_structure(3, 1) & np.array([0, 1, 0], bool)  # neighbours within a plane only
    air, _ = ndimage.label(voxels <= TISSUE_HU, cross)
    around = np.unique(np.concatenate([air[[0, -1]].ravel(), air[:, [0, -1]].ravel()]))
    return ~np.isin(air, around[around > 0])

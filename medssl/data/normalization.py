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
DECILES = tuple(range(10, 100, 10))  # of the body: the landmarks between the two percentiles
# All that stored MR voxels can be.
HALVES = np.nan_to_num(np.arange(1 << 16).astype(np.uint16).view(np.float16), posinf=8, neginf=-8).astype(np.float32)


class Recipe(Settings):
    """CT is stored as HU and windowed when read; all else is stored with its body's percentiles brought to 0 and 1.

    A CT window holds for all scans, as HU mean the same in each; an MR has a scale of its own, and so have its
    percentiles. The default window is wide and the same for every store, so that weights of one fit another.
    `medssl ingest --recipe auto` fits the recipe to a pool, and the store keeps what came out: the window of its CTs,
    and for each channel of its MRs the `landmarks`, where the deciles of a body lie between 0 and 1. Then a scan is
    bent, piece by piece, until its deciles lie there, so that one tissue has one value in all of them: Nyul, Udupa and
    Zhang, New variants of a method of MRI scale standardization, 2000, https://doi.org/10.1109/42.836373.

    The volume's unit decides, so that what is prepared for training and for prediction cannot differ. Channels that
    mix CT and MR have no common unit; `hu_channels` says which of them are windowed nevertheless.
    The wide window is that of Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image
    Analysis, 2022, https://arxiv.org/abs/2111.14791.
    """

    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    hu_channels: tuple[int, ...] = ()
    landmarks: tuple[tuple[float, ...], ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> "Recipe":
        if self.window_hu[0] >= self.window_hu[1] or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("window_hu and percentiles go from low to high, percentiles within 0 and 100")
        if any(len(row) not in (0, len(DECILES)) or list(row) != sorted(row) for row in self.landmarks):
            raise ValueError(f"landmarks are {len(DECILES)} rising numbers a channel, or none")
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
        """What stored voxels depend on: not landmarks, nor (unless channels are mixed) the window, used on reading."""
        return self.model_dump(exclude={"landmarks"} if self.hu_channels else {"landmarks", "window_hu"})

    def apply(
        self, voxels: Shaped[np.ndarray, "*n"], unit: Unit, deciles: Float32[np.ndarray, "c d"] | None = None
    ) -> Float32[np.ndarray, "*n"]:
        """Stored voxels -> the network's input in [0, 1]; `deciles` are those of the whole scan that they are of."""
        if self.landmarks and unit != "HU":
            return self._standard(voxels, deciles)
        x = voxels.astype(np.float32)
        if unit == "HU":
            low, high = self.window_hu
            x -= np.float32(low)
            x /= np.float32(high - low)
        return np.clip(x, 0, 1, out=x)

    def input(self, volume: Volume, spacing_mm: Spacing | None) -> Volume:
        """A whole volume from a scanner -> RAS, at `spacing_mm`, the network's input: as if it came from a store."""
        prepared = self.prepare(volume, spacing_mm)
        found = deciles(prepared) if self.landmarks and prepared.unit != "HU" else None
        return replace(prepared, voxels=self.apply(prepared.voxels, prepared.unit, found), unit="a.u.")

    def require(self, other: "Recipe") -> None:
        """Refuses data that were made by another recipe than these weights'."""
        if self != other:
            raise BadInput(
                f"two recipes, {self} of the weights against {other} of the data; prepare the scans anew with that of "
                "the weights (`medssl ingest --recipe RUN`), or override with allow_recipe_mismatch=true"
            )

    def _standard(
        self, voxels: Shaped[np.ndarray, "*n"], deciles: Float32[np.ndarray, "c d"] | None
    ) -> Float32[np.ndarray, "*n"]:
        """Each channel bent until the deciles of its body lie at the landmarks; 0 and 1 stay."""
        if deciles is None or len(deciles) != len(self.landmarks):
            raise BadInput(
                f"the recipe has landmarks for {len(self.landmarks)} channels, the scan has deciles of "
                f"{0 if deciles is None else len(deciles)}; ingest it again into a new folder"
            )
        channels = voxels.reshape(len(deciles), -1)
        bent = [_bent(c, *rows) for c, *rows in zip(channels, deciles, self.landmarks, strict=True)]
        return np.stack(bent).reshape(voxels.shape)

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


def deciles(volume: Volume) -> Float32[np.ndarray, "c d"]:
    """Where the deciles of the body lie in each channel of a prepared MR."""
    thin = [thinned(channel) for channel in volume.voxels.reshape(-1, *volume.shape)]
    return np.stack([np.percentile(t[body(t, "a.u.")], DECILES) for t in thin]).astype(np.float32)


def _bent(
    channel: Float16[np.ndarray, "n"], found: Float32[np.ndarray, "d"], wanted: tuple[float, ...]
) -> Float32[np.ndarray, "n"]:
    """Looked up in a table of all that half precision can be: ten times as fast as computing it for every voxel."""
    if not wanted:
        return np.clip(channel.astype(np.float32), 0, 1)
    knots = np.maximum.accumulate([0, *found.clip(0, 1), 1]) + 1e-6 * np.arange(len(found) + 2)
    table = np.interp(HALVES, knots, (0, *wanted, 1)).astype(np.float32)
    return table[channel.view(np.uint16)]


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

"""Windows: which range of values a plane spreads over black to white, and the presets the viewer offers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from medssl.volume import Volume


@dataclass(frozen=True)
class Window:
    """Values from `low` (black) to `high` (white), in the unit of the volume."""

    low: float
    high: float

    def grey(self, values: Shaped[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
        """Values -> 0 to 255, rounded half up: the same arithmetic as the viewer's table."""
        share = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return np.clip(np.floor(share * 255 + 0.5), 0, 255).astype(np.uint8)


# Centre and width in HU: what radiology departments agree on within a few units.
HU = {
    "lung": Window(-1350, 150),
    "bone": Window(-450, 1050),
    "soft tissue": Window(-160, 240),
    "brain": Window(0, 80),
    "liver": Window(-15, 155),
    "mediastinum": Window(-125, 225),
}
PERCENTILES = {"1-99 %": (1, 99), "0.1-99.9 %": (0.1, 99.9), "5-95 %": (5, 95), "bright half": (50, 99.9)}

LUNG_SHARE = 0.04


def presets(volume: Volume) -> dict[str, Window]:
    """The windows on offer for a volume: HU presets, or percentiles of what is there."""
    if volume.unit == "HU":
        return dict(HU)
    if volume.unit == "probability":
        return {"0-1": Window(0, 1)}
    values = _sampled(volume.voxels)
    tissue = values[values > values.min()] if values.min() < values.max() else values
    whole = Window(float(values.min()), _above(float(values.min()), float(values.max())))
    return {name: _between(tissue, *shares) for name, shares in PERCENTILES.items()} | {"all": whole}


def first_preset(volume: Volume) -> str:
    """The name of the preset a volume opens with: of a CT, lung where there are lungs."""
    if volume.unit != "HU":
        return next(iter(presets(volume)))
    values = _sampled(volume.voxels)
    lungs = float(((values > -950) & (values < -600)).mean())
    return "lung" if lungs > LUNG_SHARE else "soft tissue"


def _between(values: Shaped[np.ndarray, "n"], low: float, high: float) -> Window:
    a, b = (float(v) for v in np.percentile(values, (low, high)))
    return Window(a, _above(a, b))


def _above(low: float, high: float) -> float:
    """A window has a width, even over a constant image."""
    return high if high > low else low + 1


def _sampled(voxels: Shaped[np.ndarray, "*c i j k"], most: int = 200_000) -> Shaped[np.ndarray, "n"]:
    """Evenly spread finite values: percentiles of a large volume need not sort all of it."""
    flat = voxels.reshape(-1)
    flat = flat[:: max(1, flat.size // most)]
    finite = flat[np.isfinite(flat)]
    return finite if finite.size else np.zeros(1)

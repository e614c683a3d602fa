"""Defines intensity windows, and the presets that the viewer offers for a volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from medssl.volume import Volume


@dataclass(frozen=True)
class Window:
    """Values from `low` (black) to `high` (white), in the unit of the volume."""

    low: float
    high: float

    def to_grey(self, values: Shaped[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
        """Returns grey values from 0 to 255, rounded half up as in the lookup table of the viewer."""
        fraction = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return np.clip(np.floor(fraction * 255 + 0.5), 0, 255).astype(np.uint8)


# Low and high end in HU; radiology departments agree on these within a few units.
HU_PRESETS = {
    "lung": Window(-1350, 150),
    "bone": Window(-450, 1050),
    "soft tissue": Window(-160, 240),
    "brain": Window(0, 80),
    "liver": Window(-15, 155),
    "mediastinum": Window(-125, 225),
}
PERCENTILES = {"1-99 %": (1, 99), "0.1-99.9 %": (0.1, 99.9), "5-95 %": (5, 95), "bright half": (50, 99.9)}

LUNG_FRACTION = 0.04


def window_presets(volume: Volume) -> dict[str, Window]:
    """Returns the window presets of a volume by name: in HU for CT, else from percentiles of its values."""
    if volume.unit == "HU":
        return dict(HU_PRESETS)
    if volume.unit == "probability":
        return {"0-1": Window(0, 1)}
    values = _sample_values(volume.voxels)
    tissue = values[values > values.min()] if values.min() < values.max() else values
    whole = Window(float(values.min()), _ensure_above(float(values.min()), float(values.max())))
    return {name: _percentile_window(tissue, *bounds) for name, bounds in PERCENTILES.items()} | {"all": whole}


def default_preset(volume: Volume) -> str:
    """Returns the name of the preset that a volume opens with; for a CT with lungs it is `lung`."""
    if volume.unit != "HU":
        return next(iter(window_presets(volume)))
    values = _sample_values(volume.voxels)
    lungs = float(((values > -950) & (values < -600)).mean())
    return "lung" if lungs > LUNG_FRACTION else "soft tissue"


def _percentile_window(values: Shaped[np.ndarray, "n"], low: float, high: float) -> Window:
    a, b = (float(v) for v in np.percentile(values, (low, high)))
    return Window(a, _ensure_above(a, b))


def _ensure_above(low: float, high: float) -> float:
    """Returns the high end of a window, which has a width even for a constant image."""
    return high if high > low else low + 1


def _sample_values(voxels: Shaped[np.ndarray, "*c i j k"], max_values: int = 200_000) -> Shaped[np.ndarray, "n"]:
    """Returns evenly spaced finite values, so that percentiles of a large volume need not sort all of it."""
    flat = voxels.reshape(-1)
    flat = flat[:: max(1, flat.size // max_values)]
    finite = flat[np.isfinite(flat)]
    return finite if finite.size else np.zeros(1)

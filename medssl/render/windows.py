"""Defines intensity windows, and the presets that the viewer offers for a volume."""

import re
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
# The beginnings of words in the name of a structure, in the order of search: a lymph node is no lung nodule.
STRUCTURE_PRESETS = {
    "mediastinum": ("lymph", "node", "aort", "artery", "vein", "embol", "heart", "cardi",
                    "thym", "esophag", "oesophag"),
    "brain": ("brain", "cerebr", "cerebell", "intracran", "stroke", "infarct", "subdural", "glio", "mening"),
    "liver": ("liver", "hepat", "hcc", "gallbladder", "bile"),
    "bone": ("bone", "vertebra", "spine", "rib", "ribs", "fracture", "femur", "humerus", "skull", "mandible", "sacrum",
             "clavic", "scapul", "stern", "osseous"),
    "lung": ("lung", "pulmon", "nodule", "bronch", "trachea", "airway", "emphysema", "pneumo", "ggo", "consolidation"),
    "soft tissue": ("kidney", "renal", "spleen", "pancrea", "colon", "bowel", "stomach", "adrenal", "prostat",
                    "bladder", "muscle", "uter", "ovar"),
}  # fmt: skip


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


def choose_window(name: str, region: Volume) -> tuple[str, Window]:
    """Returns the window in which a radiologist would look at a structure, with the name of its preset.

    On CT the name of the structure decides; of another name, the narrowest preset of the trunk that shows most of the
    region in shades of grey. On other images it is the first preset of the region.

    Args:
        name: The name of the structure, for example `lymph node` or `liver_tumour`.
        region: The image around the structure.
    """
    presets = window_presets(region)
    if region.unit != "HU":
        preset = default_preset(region)
        return preset, presets[preset]
    if preset := find_structure_preset(name):
        return preset, presets[preset]
    low, high = np.percentile(_sample_values(region.voxels), (10, 90))
    fitting = [n for n, window in presets.items() if n != "brain" and window.low <= low and high <= window.high]
    preset = min(fitting or ["bone"], key=lambda name: presets[name].high - presets[name].low)
    return preset, presets[preset]


def find_structure_preset(name: str) -> str:
    """Returns the preset in HU that shows a structure best, by its name; empty if no word of the name is known."""
    words = re.findall(r"[a-z]+", name.lower())
    fitting = (preset for preset, beginnings in STRUCTURE_PRESETS.items()
               if any(word.startswith(beginnings) for word in words))  # fmt: skip
    return next(fitting, "")


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

"""Computes the features of each voxel of a crop that proposals are based on, from its intensities."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped
from scipy import ndimage

from medssl.volume import Unit

Features = Float32[np.ndarray, "c i j k"]
WATER_HU, TISSUE_HU = 40.0, 60.0  # soft tissue lies around the first and differs by about the second
SCALES = (1.0, 2.0)  # widths of the smoothing in units of the finest spacing
NUM_CHANNELS = 3 + len(SCALES)


@dataclass(frozen=True)
class IntensityScale:
    """Maps intensities to values of about -2 to 2, of the same meaning in all images of a modality.

    Args:
        centre: The intensity that becomes 0.
        width: The difference of intensities that becomes about 1.
    """

    centre: float
    width: float

    @classmethod
    def fit(cls, voxels: Shaped[np.ndarray, "i j k"], unit: Unit) -> "IntensityScale":
        """Returns a fixed scale for CT, else one from the percentiles 5 and 95 of an image."""
        if unit == "HU":
            return cls(WATER_HU, TISSUE_HU)
        low, high = np.percentile(voxels.ravel()[:: max(1, voxels.size // 200_000)], (5, 95))
        return cls(float(low + high) / 2, float(high - low) / 4 or 1.0)

    def apply(self, voxels: Shaped[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
        """Returns normalized intensities; large ones are compressed, so that air and bone do not hide soft tissue."""
        return np.arcsinh((voxels.astype(np.float32) - np.float32(self.centre)) / np.float32(self.width)) / 1.5


def compute_features(intensity: Float32[np.ndarray, "i j k"], spacing_mm: tuple[float, float, float]) -> Features:
    """Returns the intensity, its means at two scales, its local standard deviation and the length of its gradient.

    Args:
        intensity: The normalized intensities, see `IntensityScale`.
        spacing_mm: The distance between neighbouring voxels along i, j, k in mm.
    """
    finest = min(spacing_mm)
    sigmas = [[scale * finest / mm for mm in spacing_mm] for scale in SCALES]
    means = [ndimage.gaussian_filter(intensity, sigma, truncate=2.5) for sigma in sigmas]
    square = ndimage.gaussian_filter(intensity**2, sigmas[-1], truncate=2.5)
    deviation = np.sqrt(np.maximum(square - means[-1] ** 2, 0))
    slopes = [np.gradient(means[0], axis=axis) if means[0].shape[axis] > 1 else 0 for axis in range(3)]
    gradient = np.sqrt(sum((slope * (finest / mm)) ** 2 for slope, mm in zip(slopes, spacing_mm, strict=True)))
    return np.stack([intensity, *means, 2 * deviation, 2 * gradient]).astype(np.float32)

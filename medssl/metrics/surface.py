"""Surface distances in mm, weighted by the area of the surface.

The surface elements are those of Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for
Radiotherapy", JMIR 2021 (https://doi.org/10.2196/26151) and their code: a 2x2x2 neighbourhood of voxels is one
element, at its middle, with the area that marching cubes gives it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from medssl.volume import Spacing

# The bit of each corner in the table's code of a neighbourhood.
CORNERS = np.array([128, 64, 32, 16, 8, 4, 2, 1]).reshape(2, 2, 2)


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The distances between two surfaces, either way, with the area that each distance holds for.

    Declared for empty masks: both empty is a perfect match; one empty has NSD 0 and distance `diagonal_mm`, the
    image's diagonal, so that a missed structure can never score as a perfect one.
    """

    to_reference_mm: Float[np.ndarray, "p"]
    predicted_mm2: Float[np.ndarray, "p"]
    to_predicted_mm: Float[np.ndarray, "r"]
    reference_mm2: Float[np.ndarray, "r"]
    diagonal_mm: float

    def nsd(self, tolerance_mm: float) -> float:
        """The share of both surfaces that lies within the tolerance of the other one."""
        if self._empty is not None:
            return 1.0 if self._empty == 0 else 0.0
        near = self.predicted_mm2[self.to_reference_mm <= tolerance_mm].sum()
        near += self.reference_mm2[self.to_predicted_mm <= tolerance_mm].sum()
        return float(near / (self.predicted_mm2.sum() + self.reference_mm2.sum()))

    def hd95_mm(self) -> float:
        """The distance that 95 % of the surface stays within, in the worse of both directions."""
        if self._empty is not None:
            return self._empty
        ways = ((self.to_reference_mm, self.predicted_mm2), (self.to_predicted_mm, self.reference_mm2))
        return max(_percentile(distance, area, 0.95) for distance, area in ways)

    def assd_mm(self) -> float:
        """The mean distance over the area of both surfaces."""
        if self._empty is not None:
            return self._empty
        moment = (self.to_reference_mm * self.predicted_mm2).sum() + (self.to_predicted_mm * self.reference_mm2).sum()
        return float(moment / (self.predicted_mm2.sum() + self.reference_mm2.sum()))

    @property
    def _empty(self) -> float | None:
        """The distance to speak of where a mask is empty; None where neither is."""
        if self.predicted_mm2.size and self.reference_mm2.size:
            return None
        return self.diagonal_mm if self.predicted_mm2.size or self.reference_mm2.size else 0.0


def surfaces(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], spacing_mm: Spacing
) -> Surfaces:
    """The surfaces of two masks on one grid, and how far each lies from the other."""
    diagonal_mm = float(np.linalg.norm(np.array(predicted.shape) * spacing_mm))
    either = predicted | reference
    if not either.any():
        none = np.zeros(0)
        return Surfaces(none, none, none, none, diagonal_mm)
    (box,) = ndimage.find_objects(either.astype(np.uint8))
    mm2 = np.asarray(get_code_to_measure_table(spacing_mm)[0], np.float64)
    ours, theirs = _codes(predicted[box]), _codes(reference[box])
    to_reference_mm, to_predicted_mm = _distance_mm(theirs, spacing_mm), _distance_mm(ours, spacing_mm)
    p, r = _border(ours), _border(theirs)
    return Surfaces(to_reference_mm[p], mm2[ours[p]], to_predicted_mm[r], mm2[theirs[r]], diagonal_mm)


def _codes(mask: Bool[np.ndarray, "i j k"]) -> Integer[np.ndarray, "p q r"]:
    """For every corner between voxels, which of its eight neighbours are in the mask."""
    around = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n - 1 for n in around.shape], np.uint8)
    for (i, j, k), bit in np.ndenumerate(CORNERS):
        codes += np.uint8(bit) * around[i : i + codes.shape[0], j : j + codes.shape[1], k : k + codes.shape[2]]
    return codes


def _border(codes: Integer[np.ndarray, "p q r"]) -> Bool[np.ndarray, "p q r"]:
    return (codes > 0) & (codes < 255)


def _distance_mm(codes: Integer[np.ndarray, "p q r"], spacing_mm: Spacing) -> Float[np.ndarray, "p q r"]:
    border = _border(codes)
    return (
        ndimage.distance_transform_edt(~border, sampling=spacing_mm) if border.any() else np.full(border.shape, np.inf)
    )


def _percentile(distance_mm: Float[np.ndarray, "n"], area: Float[np.ndarray, "n"], share: float) -> float:
    order = np.argsort(distance_mm)
    reached = np.cumsum(area[order]) / area.sum()
    return float(distance_mm[order][min(int(np.searchsorted(reached, share)), len(order) - 1)])

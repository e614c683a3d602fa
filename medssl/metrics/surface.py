"""Computes surface distances in mm, weighted by surface area.

The surface elements are those of Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for
Radiotherapy", JMIR 2021 (https://doi.org/10.2196/26151) and their code: a 2x2x2 neighbourhood of voxels is one
element, at its middle, with the area that marching cubes gives it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

from medssl.volume import Spacing

# The bit of each corner in the table's code of a neighbourhood.
CORNERS = np.array([128, 64, 32, 16, 8, 4, 2, 1]).reshape(2, 2, 2)


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances between the surfaces of two masks.

    Two empty masks match perfectly. If one mask is empty, NSD is 0 and the distances are `diagonal_mm`, so that a
    missed structure never scores as a perfect one.

    Args:
        to_reference_mm: The distance from each predicted surface element to the reference surface.
        predicted_mm2: The area of each predicted surface element.
        to_predicted_mm: The distance from each reference surface element to the predicted surface.
        reference_mm2: The area of each reference surface element.
        diagonal_mm: The diagonal of the image.
    """

    to_reference_mm: Float[np.ndarray, "p"]
    predicted_mm2: Float[np.ndarray, "p"]
    to_predicted_mm: Float[np.ndarray, "r"]
    reference_mm2: Float[np.ndarray, "r"]
    diagonal_mm: float

    def nsd(self, tolerance_mm: float) -> float:
        """Returns the normalized surface Dice: the fraction of both surfaces within the tolerance of the other one."""
        if self._empty is not None:
            return 1.0 if self._empty == 0 else 0.0
        near = self.predicted_mm2[self.to_reference_mm <= tolerance_mm].sum()
        near += self.reference_mm2[self.to_predicted_mm <= tolerance_mm].sum()
        return float(near / (self.predicted_mm2.sum() + self.reference_mm2.sum()))

    def hd95_mm(self) -> float:
        """Returns the 95 % percentile of the distances in mm, in the worse of both directions."""
        if self._empty is not None:
            return self._empty
        directions = ((self.to_reference_mm, self.predicted_mm2), (self.to_predicted_mm, self.reference_mm2))
        return max(_weighted_percentile(distance, area, 0.95) for distance, area in directions)

    def assd_mm(self) -> float:
        """Returns the average symmetric surface distance in mm, over the area of both surfaces."""
        if self._empty is not None:
            return self._empty
        moment = (self.to_reference_mm * self.predicted_mm2).sum() + (self.to_predicted_mm * self.reference_mm2).sum()
        return float(moment / (self.predicted_mm2.sum() + self.reference_mm2.sum()))

    @property
    def _empty(self) -> float | None:
        """The distance if a mask is empty; None if neither is."""
        if self.predicted_mm2.size and self.reference_mm2.size:
            return None
        return self.diagonal_mm if self.predicted_mm2.size or self.reference_mm2.size else 0.0


def compute_surface_distances(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], spacing_mm: Spacing
) -> SurfaceDistances:
    """Returns the distances between the surfaces of two masks on one grid."""
    diagonal_mm = float(np.linalg.norm(np.array(predicted.shape) * spacing_mm))
    union = predicted | reference
    if not union.any():
        none = np.zeros(0)
        return SurfaceDistances(none, none, none, none, diagonal_mm)
    (box,) = ndimage.find_objects(union.astype(np.uint8))
    mm2 = create_table_neighbour_code_to_surface_area(spacing_mm)
    codes, reference_codes = _encode_neighbourhoods(predicted[box]), _encode_neighbourhoods(reference[box])
    to_reference_mm, to_predicted_mm = (_compute_distance_mm(c, spacing_mm) for c in (reference_codes, codes))
    p, r = _find_border(codes), _find_border(reference_codes)
    return SurfaceDistances(to_reference_mm[p], mm2[codes[p]], to_predicted_mm[r], mm2[reference_codes[r]], diagonal_mm)


def _encode_neighbourhoods(mask: Bool[np.ndarray, "i j k"]) -> Integer[np.ndarray, "p q r"]:
    """Returns for each corner between voxels a bit code of its eight neighbours in the mask."""
    around = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n - 1 for n in around.shape], np.uint8)
    for (i, j, k), bit in np.ndenumerate(CORNERS):
        codes += np.uint8(bit) * around[i : i + codes.shape[0], j : j + codes.shape[1], k : k + codes.shape[2]]
    return codes


def _find_border(codes: Integer[np.ndarray, "p q r"]) -> Bool[np.ndarray, "p q r"]:
    return (codes > 0) & (codes < 255)


def _compute_distance_mm(codes: Integer[np.ndarray, "p q r"], spacing_mm: Spacing) -> Float[np.ndarray, "p q r"]:
    border = _find_border(codes)
    return (
        ndimage.distance_transform_edt(~border, sampling=spacing_mm) if border.any() else np.full(border.shape, np.inf)
    )


def _weighted_percentile(distance_mm: Float[np.ndarray, "n"], area: Float[np.ndarray, "n"], fraction: float) -> float:
    order = np.argsort(distance_mm)
    cumulative = np.cumsum(area[order]) / area.sum()
    return float(distance_mm[order][min(int(np.searchsorted(cumulative, fraction)), len(order) - 1)])

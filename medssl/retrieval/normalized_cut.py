"""Proposes the region around a place without labels, by a normalised cut of frozen features.

Wang et al., "TokenCut: segmenting objects in images and videos with self-supervised transformer and normalized cut"
(2022), https://arxiv.org/abs/2209.00383, after Shi and Malik, "Normalized cuts and image segmentation" (2000),
https://doi.org/10.1109/34.868688. Deviations: the graph has the cells of a box around a place of a 3D scan, so that it
stays small; the side of the cut that holds the place is the proposal, instead of the side with the largest value of the
eigenvector; and the threshold of the similarities is a quantile, since the features of convolutional encoders have a
large common part.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg, ndimage

from medssl.errors import BadInput
from medssl.finding import Point
from medssl.volume import Volume

MAX_CELLS = 4096
WEAK_EDGE = 1e-5  # between cells that are less alike; keeps the graph connected


def propose_region(features: Volume, place_mm: Point, reach_mm: float, quantile: float = 0.5) -> Volume:
    """Returns the connected region of cells around a place that a normalised cut separates from the rest of a box.

    Args:
        features: Features "c i j k" with length 1 at each place.
        place_mm: A place in mm, RAS+, inside the grid of the features.
        reach_mm: The distance of the faces of the box from the place.
        quantile: The fraction of the pairs of cells in the box that count as unlike.

    Returns:
        A label map of the box, on the grid of the features, with 1 in the region.

    Raises:
        BadInput: The place lies outside the grid, or the box has fewer than 8 or more than 4096 cells.
    """
    box = _cut_box(features, place_mm, reach_mm)
    rows = box.voxels.reshape(len(box.voxels), -1).T.astype(np.float64)
    vector = compute_cut(rows @ rows.T, quantile).reshape(box.shape)
    seed = tuple(np.rint(box.to_index(np.array(place_mm))).astype(int).clip(0, np.array(box.shape) - 1))
    is_high = vector > vector.mean()
    components, _ = ndimage.label(is_high == is_high[seed])
    return replace(box, voxels=(components == components[seed]).astype(np.uint8), unit="label")


def compute_cut(similarity: Float[np.ndarray, "n n"], quantile: float) -> Float[np.ndarray, "n"]:
    """Returns the second smallest generalised eigenvector of the graph Laplacian, whose sign is arbitrary.

    Args:
        similarity: The similarity of each pair of cells.
        quantile: The fraction of the pairs that count as unlike.
    """
    is_alike: Bool[np.ndarray, "n n"] = similarity > np.quantile(similarity, quantile)
    weight = np.where(is_alike | np.eye(len(similarity), dtype=bool), 1.0, WEAK_EDGE)
    scale = 1 / np.sqrt(weight.sum(1))
    _, vectors = linalg.eigh(np.eye(len(weight)) - scale[:, None] * weight * scale, subset_by_index=(1, 1))
    return vectors[:, 0] * scale


def _cut_box(features: Volume, place_mm: Point, reach_mm: float) -> Volume:
    """Returns the features within a distance of a place along each axis."""
    index, reach = features.to_index(np.array(place_mm)), reach_mm / np.array(features.spacing_mm())
    shape = np.array(features.shape)
    if (index < -0.5).any() or (index > shape - 0.5).any():
        raise BadInput(f"the place {place_mm} mm is outside the features of {features.shape} cells; give one inside")
    low = np.ceil(index - reach).clip(0, shape - 1).astype(int)
    high = (np.floor(index + reach).clip(0, shape - 1) + 1).astype(int)
    count = int((high - low).clip(0).prod())
    if not 8 <= count <= MAX_CELLS:
        raise BadInput(
            f"{reach_mm:g} mm around a place are {count} cells of {_format_spacing(features)} mm, and a normalised cut"
            f" needs 8 to {MAX_CELLS}; change the reach, or choose a coarser or finer level"
        )
    affine = features.affine.copy()
    affine[:3, 3] = features.to_mm(low.astype(float))
    voxels = features.voxels[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    return replace(features, voxels=voxels, affine=affine)


def _format_spacing(features: Volume) -> str:
    return " x ".join(f"{mm:.3g}" for mm in features.spacing_mm())

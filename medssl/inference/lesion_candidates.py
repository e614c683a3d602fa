"""Extracts lesion candidates from a probability volume: its peaks, each with the surrounding voxels.

The voxels of a candidate are those above a level relative to its peak, so an uncertain lesion gets the same extent as a
certain one, and a lower score: Bosma et al., "Semisupervised Learning with Report-guided Pseudo Labels for Deep
Learning-based Prostate Cancer Detection", Radiology: Artificial Intelligence 2023, https://doi.org/10.1148/ryai.230031.
Deviation: a candidate that touches a stronger one is not dropped, but keeps the part of its peak that stands apart.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy import ndimage

from medssl.arrays.disk_arrays import release_pages
from medssl.arrays.region_labels import label_regions
from medssl.volume import NEIGHBOURS_26

SEARCH_RADIUS = 8  # voxels to each side of a peak that are searched first
BISECTION_STEPS = 8  # steps to find the level that separates a peak from a stronger one


@dataclass(frozen=True, eq=False)
class Candidate:
    """Voxels of one class that may be a lesion.

    Args:
        label: The label value of the class.
        score: The score of the lesion, 0 to 1.
        voxels: The indices of its voxels.
        box: The corners of its bounding box in voxels, low then high.
    """

    label: int
    score: float
    voxels: Integer[np.ndarray, "n 3"]
    box: Float[np.ndarray, "6"]


def extract_candidates(
    probability: Float[np.ndarray, "i j k"],
    label: int,
    min_score: float = 0.1,
    relative_level: float = 0.4,
    max_candidates: int = 50,
) -> list[Candidate]:
    """Returns the highest peaks of a class, in descending order, with the voxels around them.

    No two candidates touch, not even by a corner, so each is one connected component.

    Args:
        probability: The probability of the class.
        label: The label value of the class.
        min_score: The lowest peak that counts.
        relative_level: Voxels belong to a candidate above this fraction of its peak.
        max_candidates: The largest number of candidates.
    """
    numbers, regions = label_regions(probability, lambda slab: slab >= relative_level * min_score)
    candidates = []
    for region in regions:
        hill = np.where(np.isin(numbers[region.box], region.parts), probability[region.box], 0)
        release_pages(numbers, probability)
        if hill.max() >= min_score:
            corner = np.array([side.start for side in region.box])
            candidates += [
                _make_candidate(label, score, voxels + corner)
                for score, voxels in _extract_peaks(hill, min_score, relative_level, max_candidates)
            ]
    return sorted(candidates, key=lambda candidate: -candidate.score)[:max_candidates]


def ellipsoid_candidate(
    box: Float[np.ndarray, "6"], label: int, score: float, shape: tuple[int, int, int]
) -> Candidate:
    """Returns a box as a candidate: the ellipsoid inscribed in it, at least one voxel.

    It has no voxel if the box has its centre outside the volume.

    Args:
        box: Box corners in voxels, low then high.
        label: The label value of the class.
        score: The score of the box.
        shape: The shape of the volume.
    """
    low, high = np.floor(box[:3]).clip(0).astype(int), np.minimum(np.ceil(box[3:]).astype(int), shape)
    centre, radius = (box[:3] + box[3:]) / 2, (box[3:] - box[:3]) / 2
    voxels = np.argwhere(np.ones((high - low).clip(0), bool)) + low
    inside = voxels[(((voxels + 0.5 - centre) / np.maximum(radius, 0.5)) ** 2).sum(1) <= 1]
    if not len(inside) and (centre >= 0).all() and (centre < shape).all():
        inside = np.floor(centre[None]).astype(int)
    return Candidate(label, score, inside, box)


def _make_candidate(label: int, score: float, voxels: Integer[np.ndarray, "n 3"]) -> Candidate:
    return Candidate(label, score, voxels, np.concatenate([voxels.min(0), voxels.max(0) + 1]).astype(float))


def _extract_peaks(
    hill: Float[np.ndarray, "i j k"], min_score: float, relative_level: float, max_candidates: int
) -> list[tuple[float, Integer[np.ndarray, "n 3"]]]:
    """Returns the peaks of one region from the highest down, with their voxels; a stronger peak claims voxels first."""
    tops = np.argwhere((hill >= min_score) & (hill >= ndimage.maximum_filter(hill, 3)))
    order = np.argsort(-hill[tuple(tops.T)], kind="stable")
    occupied = np.zeros(hill.shape, bool)
    peaks: list[tuple[float, Integer[np.ndarray, "n 3"]]] = []
    for top in tops[order]:
        if len(peaks) < max_candidates and not occupied[tuple(top)]:
            voxels = _separate_peak(hill, top, relative_level, occupied)
            peaks.append((float(hill[tuple(top)]), voxels))
            low, high = (voxels.min(0) - 1).clip(0), voxels.max(0) + 2
            mask = np.zeros(np.minimum(high, hill.shape) - low, bool)
            mask[tuple((voxels - low).T)] = True
            occupied[tuple(map(slice, low, high))] |= ndimage.maximum_filter(mask, 3)
    return peaks


def _separate_peak(
    hill: Float[np.ndarray, "i j k"],
    top: Int[np.ndarray, "3"],
    relative_level: float,
    occupied: Bool[np.ndarray, "i j k"],
) -> Int[np.ndarray, "n 3"]:
    """Returns the voxels around a peak above its relative level, or above the lowest level that avoids `occupied`."""
    high = float(hill[tuple(top)])
    low = relative_level * high
    voxels = _connected_voxels(hill, low, top, occupied)
    if voxels is not None:
        return voxels
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _connected_voxels(hill, middle, top, occupied) is None else (low, middle)
    voxels = _connected_voxels(hill, high, top, occupied)
    return top[None] if voxels is None else voxels


def _connected_voxels(
    hill: Float[np.ndarray, "i j k"], level: float, top: Int[np.ndarray, "3"], occupied: Bool[np.ndarray, "i j k"]
) -> Int[np.ndarray, "n 3"] | None:
    """Returns the voxels of at least `level` that are connected with the peak, or None if any of them is occupied.

    For speed, it searches in a window that grows as long as the component reaches its border.
    """
    radius = SEARCH_RADIUS
    while True:
        first, last = (top - radius).clip(0), np.minimum(top + radius + 1, hill.shape)
        window = tuple(map(slice, first, last))
        components, _ = ndimage.label(hill[window] >= level, NEIGHBOURS_26)
        mask = components == components[tuple(top - first)]
        if (mask & occupied[window]).any():
            return None
        voxels = np.argwhere(mask) + first
        reaches_border = (voxels == first) & (first > 0) | (voxels == last - 1) & (last < hill.shape)
        if not reaches_border.any():
            return voxels
        radius *= 2

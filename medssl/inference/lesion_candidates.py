"""Candidates: the peaks of a probability volume, each with the voxels around it that belong to it, however low it is.

The level is relative to the peak, as in Bosma et al., "Semisupervised Learning with Report-guided Pseudo Labels for
Deep Learning-based Prostate Cancer Detection", Radiology: Artificial Intelligence 2023
(https://doi.org/10.1148/ryai.230031): a lesion the network half believes in is found as one it is sure of, and has a
lower score. There, what touches a stronger candidate is dropped; here it keeps the part of its hill that stands apart.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy import ndimage

from medssl.volume import NEIGHBOURS_26

WINDOW = 8  # voxels to each side of a peak that are looked at first
HALVINGS = 8  # of the range in which the level lies that parts a peak from a stronger one


@dataclass(frozen=True, eq=False)
class Candidate:
    """Voxels of one class that may be a lesion, and how sure that is; its `box` is in voxel corners, low then high."""

    label: int
    score: float
    voxels: Integer[np.ndarray, "n 3"]
    box: Float[np.ndarray, "6"]


def candidates(
    probability: Float[np.ndarray, "i j k"], label: int, least: float = 0.1, share: float = 0.4, most: int = 50
) -> list[Candidate]:
    """The `most` highest peaks of at least `least`, the highest first, with the voxels above `share` of the peak.

    No two of them touch, not even by a corner, so that each is one connected part of what is drawn of them.
    """
    regions, _ = ndimage.label(probability >= share * least, NEIGHBOURS_26)
    found = []
    for number, box in enumerate(ndimage.find_objects(regions), 1):
        hill = np.where(regions[box] == number, probability[box], 0)
        if hill.max() >= least:
            corner = np.array([side.start for side in box])
            found += [_candidate(label, score, at + corner) for score, at in _peaks(hill, least, share, most)]
    return sorted(found, key=lambda one: -one.score)[:most]


def within(box: Float[np.ndarray, "6"], label: int, score: float, shape: tuple[int, int, int]) -> Candidate:
    """A box as a candidate: the ellipsoid that fills it, at least a voxel; none where its middle leaves the volume."""
    low, high = np.floor(box[:3]).clip(0).astype(int), np.minimum(np.ceil(box[3:]).astype(int), shape)
    middle, half = (box[:3] + box[3:]) / 2, (box[3:] - box[:3]) / 2
    at = np.argwhere(np.ones((high - low).clip(0), bool)) + low
    inside = at[(((at + 0.5 - middle) / np.maximum(half, 0.5)) ** 2).sum(1) <= 1]
    if not len(inside) and (middle >= 0).all() and (middle < shape).all():
        inside = np.floor(middle[None]).astype(int)
    return Candidate(label, score, inside, box)


def _candidate(label: int, score: float, voxels: Integer[np.ndarray, "n 3"]) -> Candidate:
    return Candidate(label, score, voxels, np.concatenate([voxels.min(0), voxels.max(0) + 1]).astype(float))


def _peaks(
    hill: Float[np.ndarray, "i j k"], least: float, share: float, most: int
) -> list[tuple[float, Integer[np.ndarray, "n 3"]]]:
    """The peaks of one region, from the highest down, and their voxels; a stronger peak takes first."""
    tops = np.argwhere((hill >= least) & (hill >= ndimage.maximum_filter(hill, 3)))
    order = np.argsort(-hill[tuple(tops.T)], kind="stable")
    taken = np.zeros(hill.shape, bool)
    found: list[tuple[float, Integer[np.ndarray, "n 3"]]] = []
    for top in tops[order]:
        if len(found) < most and not taken[tuple(top)]:
            voxels = _apart(hill, top, share, taken)
            found.append((float(hill[tuple(top)]), voxels))
            low, high = (voxels.min(0) - 1).clip(0), voxels.max(0) + 2
            around = np.zeros(np.minimum(high, hill.shape) - low, bool)
            around[tuple((voxels - low).T)] = True
            taken[tuple(map(slice, low, high))] |= ndimage.maximum_filter(around, 3)
    return found


def _apart(
    hill: Float[np.ndarray, "i j k"], top: Int[np.ndarray, "3"], share: float, taken: Bool[np.ndarray, "i j k"]
) -> Int[np.ndarray, "n 3"]:
    """The voxels around a peak above `share` of it, or as much higher as it takes to leave `taken` ones alone."""
    high = float(hill[tuple(top)])
    low = share * high
    voxels = _part(hill, low, top, taken)
    if voxels is not None:
        return voxels
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _part(hill, middle, top, taken) is None else (low, middle)
    voxels = _part(hill, high, top, taken)
    return top[None] if voxels is None else voxels


def _part(
    hill: Float[np.ndarray, "i j k"], level: float, top: Int[np.ndarray, "3"], taken: Bool[np.ndarray, "i j k"]
) -> Int[np.ndarray, "n 3"] | None:
    """The voxels of at least `level` that hang together with the peak, or None where any of them is taken.

    Looked for in a window that grows as long as they leave it: most are few, and most that touch do so nearby.
    """
    reach = WINDOW
    while True:
        first, last = (top - reach).clip(0), np.minimum(top + reach + 1, hill.shape)
        window = tuple(map(slice, first, last))
        numbered, _ = ndimage.label(hill[window] >= level, NEIGHBOURS_26)
        mask = numbered == numbered[tuple(top - first)]
        if (mask & taken[window]).any():
            return None
        voxels = np.argwhere(mask) + first
        leaves = (voxels == first) & (first > 0) | (voxels == last - 1) & (last < hill.shape)
        if not leaves.any():
            return voxels
        reach *= 2

"""Finds the place in another scan that is most like a given place, and checks it by the way back.

Yan et al., "SAM: self-supervised learning of pixel-wise anatomical embeddings in radiological images" (2022),
https://arxiv.org/abs/2012.02383. Deviations: the embeddings are L2-normalised features of some levels of any encoder,
without heads of their own, each level with the same weight; and every match is traced back to the first scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from medssl.finding import Point
from medssl.volume import Volume

EPSILON = 1e-8


@dataclass(frozen=True)
class PlaceMatch:
    """The place in a scan that is most like the given place in another one.

    Args:
        place_mm: The place in mm, RAS+.
        similarity: The cosine similarity of the features, as the mean over levels, at most 1.
        back_mm: The distance in mm from the given place to the place that is most like this match in the first scan.
    """

    place_mm: Point
    similarity: float
    back_mm: float


def match_place(source: Sequence[Volume], place_mm: Point, target: Sequence[Volume]) -> PlaceMatch:
    """Returns the most similar place in another scan, searched at the grid of its finest level, with the way back.

    Args:
        source: Features "c i j k" of the scan with the given place, at some levels, fine to coarse.
        place_mm: The given place in mm, RAS+, of the source.
        target: Features of the other scan at the same levels.
    """
    found_mm, similarity = find_most_similar(describe_place(source, place_mm), target)
    back_mm, _ = find_most_similar(describe_place(target, found_mm), source)
    distance = float(np.linalg.norm(np.subtract(back_mm, place_mm)))
    return PlaceMatch(found_mm, similarity, distance)


def describe_place(levels: Sequence[Volume], place_mm: Point) -> list[Float[np.ndarray, "_"]]:
    """Returns the features at a place, interpolated linearly, with length 1 at each level.

    Args:
        levels: Features "c i j k" of a scan.
        place_mm: The place in mm, RAS+; one outside the grid of a level gets the features at its edge.
    """
    descriptors = []
    for level in levels:
        index = np.clip(level.to_index(np.array(place_mm, float)), 0, np.array(level.shape) - 1.0)
        low = np.minimum(np.floor(index).astype(int), np.maximum(np.array(level.shape) - 2, 0))
        box = tuple(slice(first, first + 2) for first in low)
        cell = level.voxels[(slice(None), *box)].astype(np.float64)
        values = np.array([ndimage.map_coordinates(c, (index - low)[:, None], order=1, mode="nearest") for c in cell])
        descriptors.append(values[:, 0] / max(float(np.linalg.norm(values)), EPSILON))
    return descriptors


def find_most_similar(descriptors: Sequence[Float[np.ndarray, "_"]], levels: Sequence[Volume]) -> tuple[Point, float]:
    """Returns the place in mm whose features are most like the descriptors, and the cosine similarity."""
    similarity = map_similarity(descriptors, levels)
    index = np.array(np.unravel_index(int(similarity.voxels.argmax()), similarity.shape), float)
    x, y, z = similarity.to_mm(index).tolist()
    return (x, y, z), float(similarity.voxels.max())


def map_similarity(descriptors: Sequence[Float[np.ndarray, "_"]], levels: Sequence[Volume]) -> Volume:
    """Returns the mean cosine similarity over levels at each place of the finest level.

    Args:
        descriptors: One vector of length 1 for each level.
        levels: Features "c i j k" of a scan, fine to coarse; coarser similarities are interpolated linearly.
    """
    finest = replace(levels[0], voxels=np.zeros(levels[0].shape, np.float32))
    total = finest.voxels
    for descriptor, level in zip(descriptors, levels, strict=True):
        features = level.voxels.astype(np.float32)
        length = np.sqrt(np.einsum("cijk,cijk->ijk", features, features))
        cosine = np.einsum("c,cijk->ijk", descriptor.astype(np.float32), features) / np.maximum(length, EPSILON)
        total = total + replace(level, voxels=cosine).resample_to(finest, 1, None, is_filtered=False).voxels
    return replace(finest, voxels=total / len(levels))

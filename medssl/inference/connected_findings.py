"""Findings: the connected structures of a label volume, measured in mm and ml."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from medssl.errors import Doubt
from medssl.finding import Finding, Point
from medssl.volume import NEIGHBOURS_26, Volume

MOST = 500  # findings of a label: a network that scatters more than this has found nothing a person could review


def find(
    labels: Volume,
    confidence: Float[np.ndarray, "i j k"],
    entropy: Float[np.ndarray, "i j k"],
    case: str,
    names: Mapping[int, str],
    smallest_ml: float = 0.0,
) -> tuple[Finding, ...]:
    """Every connected part of every label, the largest of a label first; parts below `smallest_ml` are left out.

    Voxels of one label that touch by a face, an edge or a corner are one part. `score` is the highest confidence
    (probability of the given label) in the part, `uncertainty` the mean of `entropy` over it.
    """
    found = []
    least = smallest_ml / labels.voxel_ml() * (1 - 1e-9)
    for label, name in names.items():
        for n, voxels in enumerate(_indices(labels.voxels == label, least, f"{case}: {name}"), 1):
            at = tuple(voxels.T)
            part = measure(voxels, labels, f"{case}-{label}-{n}", case, label, name)
            found.append(replace(part, score=float(confidence[at].max()), uncertainty=float(entropy[at].mean())))
    return tuple(found)


def parts(mask: Bool[np.ndarray, "i j k"]) -> Integer[np.ndarray, "i j k"]:
    """The connected parts of a mask, numbered from 1 as findings are: the largest first, ties as they are stored."""
    numbered, count = ndimage.label(mask, NEIGHBOURS_26)
    size = np.bincount(numbered[mask], minlength=count + 1)[1:]
    rank = np.zeros(count + 1, numbered.dtype)
    rank[1 + np.argsort(-size, kind="stable")] = np.arange(1, count + 1)
    return rank[numbered]


def measure(voxels: Integer[np.ndarray, "n 3"], grid: Volume, id: str, case: str, label: int, name: str) -> Finding:
    """One part, given the indices of its voxels in the order of `np.argwhere`.

    Its centre of mass, the box around its voxels' corners, its volume and its longest diameter.
    """
    ends_mm = grid.to_mm(_ends(voxels))
    reach = np.abs(grid.affine[:3, :3]).sum(1) / 2
    return Finding(
        id=id, case=case, label=label, name=name, centre_mm=_point(grid.to_mm(voxels.mean(0))),
        low_mm=_point(ends_mm.min(0) - reach), high_mm=_point(ends_mm.max(0) + reach),
        volume_ml=len(voxels) * grid.voxel_ml(), diameter_mm=feret_mm(voxels, grid), score=1.0,
    )  # fmt: skip


def feret_mm(voxels: Integer[np.ndarray, "n 3"], grid: Volume) -> float:
    """The longest distance between two points of the surface: a reader's longest diameter, in any direction.

    The surface runs half-way between voxels inside and outside, as in the mesh of Zwanenburg et al., "The Image
    Biomarker Standardization Initiative", Radiology 2020 (https://doi.org/10.1148/radiol.2020191145), "maximum 3D
    diameter": so its extreme points are the middles of voxel faces. Exact: the farthest two lie on the convex hull.
    """
    ends = _ends(voxels)
    faces = np.concatenate([ends + step for half in np.eye(3) / 2 for step in (half, -half)])
    hull = faces[ConvexHull(faces).vertices]
    return float(pdist(hull @ grid.affine[:3, :3].T).max())


def _indices(mask: Bool[np.ndarray, "i j k"], least: float, name: str) -> Iterator[Int[np.ndarray, "n 3"]]:
    """The voxel indices of each connected part of at least so many voxels."""
    if not mask.any():
        return
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    numbered = parts(mask[box])
    count = int((np.bincount(numbered[mask[box]])[1:] >= least).sum())
    if count > MOST:
        warnings.warn(f"{name} is in {count} parts, the {MOST} largest are findings", Doubt, stacklevel=3)
    for n, side in enumerate(ndimage.find_objects(numbered, min(count, MOST)), 1):
        yield np.argwhere(numbered[side] == n) + [whole.start + s.start for whole, s in zip(box, side, strict=True)]


def _ends(voxels: Integer[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """The first and last of every line of voxels along k: no linear measure has its extreme elsewhere."""
    new = np.any(np.diff(voxels[:, :2], axis=0), axis=1)
    return voxels[np.r_[True, new] | np.r_[new, True]].astype(float)


def _point(mm: Float[np.ndarray, "3"]) -> Point:
    x, y, z = (float(v) for v in mm)
    return x, y, z

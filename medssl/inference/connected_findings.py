"""Extracts findings from a label volume: its connected components, measured in mm and ml."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from medssl.errors import InputWarning
from medssl.finding import Finding, FindingKind, Point
from medssl.volume import NEIGHBOURS_26, Volume

MAX_FINDINGS = 500  # per label; more components than this are noise that no reader can review


def extract_findings(
    labels: Volume,
    confidence: Float[np.ndarray, "i j k"],
    entropy: Float[np.ndarray, "i j k"],
    case: str,
    names: Mapping[int, str],
    min_volume_ml: float = 0.0,
    organs: Collection[int] = (),
) -> tuple[Finding, ...]:
    """Returns one finding for each lesion, the largest of a label first, then one for each organ.

    A lesion is a connected component of its label: voxels that share a face, an edge or a corner are connected. An
    organ is all voxels of its label, whose fragments are parts of one item.

    Args:
        labels: The label volume.
        confidence: The probability of the label in each voxel; its maximum over a component is the score.
        entropy: The uncertainty in each voxel; its mean over a component is the uncertainty.
        case: The id of the case.
        names: The class names by label value.
        min_volume_ml: Components below this volume are left out.
        organs: The label values of organs.
    """
    findings = []
    min_voxels = min_volume_ml / labels.voxel_ml() * (1 - 1e-9)
    for label, name in sorted(names.items(), key=lambda item: item[0] in organs):
        kind: FindingKind = "organ" if label in organs else "lesion"
        components = _iterate_components(labels.voxels == label, min_voxels, f"{case}: {name}", kind)
        for number, voxels in enumerate(components, 1):
            indices = tuple(voxels.T)
            finding = measure_finding(voxels, labels, f"{case}-{label}-{number}", case, label, name)
            score, uncertainty = float(confidence[indices].max()), float(entropy[indices].mean())
            findings.append(replace(finding, score=score, uncertainty=uncertainty, kind=kind))
    return tuple(findings)


def label_components(mask: Bool[np.ndarray, "i j k"]) -> Integer[np.ndarray, "i j k"]:
    """Numbers the connected components of a mask from 1, as findings are: the largest first."""
    numbers, count = ndimage.label(mask, NEIGHBOURS_26)
    size = np.bincount(numbers[mask], minlength=count + 1)[1:]
    rank = np.zeros(count + 1, numbers.dtype)
    rank[1 + np.argsort(-size, kind="stable")] = np.arange(1, count + 1)
    return rank[numbers]


def measure_finding(
    voxels: Integer[np.ndarray, "n 3"], grid: Volume, id: str, case: str, label: int, name: str
) -> Finding:
    """Measures centre of mass, bounding box, volume and longest diameter of a component.

    Args:
        voxels: The voxel indices of the component, in the order of `np.argwhere`.
        grid: A volume on the grid of the indices.
        id: The id of the finding.
        case: The id of the case.
        label: The label value.
        name: The class name.
    """
    ends_mm = grid.to_mm(_select_line_ends(voxels))
    half_voxel_mm = np.abs(grid.affine[:3, :3]).sum(1) / 2
    return Finding(
        id=id, case=case, label=label, name=name, centre_mm=_to_point(grid.to_mm(voxels.mean(0))),
        low_mm=_to_point(ends_mm.min(0) - half_voxel_mm), high_mm=_to_point(ends_mm.max(0) + half_voxel_mm),
        volume_ml=len(voxels) * grid.voxel_ml(), diameter_mm=measure_feret_mm(voxels, grid), score=1.0,
    )  # fmt: skip


def measure_feret_mm(voxels: Integer[np.ndarray, "n 3"], grid: Volume) -> float:
    """Returns the maximum 3D diameter: the largest distance between two surface points, in mm.

    The surface runs half-way between voxels inside and outside, as in the mesh of Zwanenburg et al., "The Image
    Biomarker Standardization Initiative", Radiology 2020 (https://doi.org/10.1148/radiol.2020191145), "maximum 3D
    diameter". Its extreme points are the centres of voxel faces, and the farthest two lie on their convex hull, so the
    result is exact.
    """
    ends = _select_line_ends(voxels)
    faces = np.concatenate([ends + step for half in np.eye(3) / 2 for step in (half, -half)])
    hull = faces[ConvexHull(faces).vertices]
    return float(pdist(hull @ grid.affine[:3, :3].T).max())


def _iterate_components(
    mask: Bool[np.ndarray, "i j k"], min_voxels: float, name: str, kind: FindingKind
) -> Iterator[Int[np.ndarray, "n 3"]]:
    """Yields the voxel indices of each connected component of at least `min_voxels` voxels, the largest first.

    The voxels of an organ are yielded together.
    """
    if not mask.any():
        return
    if kind == "organ":
        if np.count_nonzero(mask) >= min_voxels:
            yield np.argwhere(mask)
        return
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    numbers = label_components(mask[box])
    count = int((np.bincount(numbers[mask[box]])[1:] >= min_voxels).sum())
    if count > MAX_FINDINGS:
        warnings.warn(
            f"{name} has {count} connected components; only the {MAX_FINDINGS} largest become findings",
            InputWarning,
            stacklevel=3,
        )
    for number, inner in enumerate(ndimage.find_objects(numbers, min(count, MAX_FINDINGS)), 1):
        origin = [outer.start + side.start for outer, side in zip(box, inner, strict=True)]
        yield np.argwhere(numbers[inner] == number) + origin


def _select_line_ends(voxels: Integer[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Returns the first and last voxel of every line along k, which include the extremes of any linear function."""
    is_new_line = np.any(np.diff(voxels[:, :2], axis=0), axis=1)
    return voxels[np.r_[True, is_new_line] | np.r_[is_new_line, True]].astype(float)


def _to_point(mm: Float[np.ndarray, "3"]) -> Point:
    x, y, z = (float(v) for v in mm)
    return x, y, z

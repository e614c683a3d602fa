"""Extracts findings from a label volume: its connected components, measured in mm and ml."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict

import numpy as np
from jaxtyping import Bool, Integer, Num
from scipy import ndimage

from medssl.errors import InputWarning
from medssl.finding import Finding
from medssl.inference.findings.collect import ComponentCollector, Structures
from medssl.inference.findings.location import describe_location
from medssl.inference.findings.runs import find_runs, iterate_blocks, order_as_file
from medssl.inference.findings.sizes import Sizes, measure_runs
from medssl.volume import NEIGHBOURS_26, Volume

MAX_FINDINGS = 500  # per label; more components than this are noise that no reader can review


def extract_findings(
    labels: Volume,
    confidence: Num[np.ndarray, "i j k"],
    uncertainty: Num[np.ndarray, "i j k"] | None,
    case: str,
    names: Mapping[int, str],
    min_volume_ml: float = 0.0,
    organs: Collection[int] = (),
    image: Volume | None = None,
) -> tuple[Finding, ...]:
    """Returns one finding for each lesion, the largest of a label first, then one for each organ.

    A lesion is a connected component of its label: voxels that share a face, an edge or a corner are connected. An
    organ is all voxels of its label, whose fragments are parts of one item.

    Args:
        labels: The label volume.
        confidence: The probability of the label in each voxel; its maximum over a component is the score.
        uncertainty: The uncertainty in each voxel; its mean over a component is the uncertainty.
        case: The id of the case.
        names: The class names by label value.
        min_volume_ml: Components below this volume are left out.
        organs: The label values of organs.
        image: The image on the same grid, of which the first channel gives the mean intensity of each finding.
    """
    collector = ComponentCollector(organs)
    channel = None if image is None else image.voxels.reshape(-1, *image.shape)[0]
    is_named = np.isin(np.arange(max(int(labels.voxels.max()), 0) + 1), list(names))
    for slices in iterate_blocks(labels.shape):
        block = order_as_file(labels.voxels, slices)
        collector.add(
            np.where(is_named[np.maximum(block, 0)], block, 0),
            slices.start,
            order_as_file(confidence, slices),
            None if uncertainty is None else order_as_file(uncertainty, slices),
            None if channel is None else order_as_file(channel, slices),
        )
    return build_findings(collector.merge(), labels, case, names, min_volume_ml, organs)


def build_findings(
    structures: Structures,
    grid: Volume,
    case: str,
    names: Mapping[int, str],
    min_volume_ml: float = 0.0,
    organs: Collection[int] = (),
) -> tuple[Finding, ...]:
    """Measures the structures of a case as findings.

    Args:
        structures: The structures of all labels.
        grid: A volume on the grid of the labels.
        case: The id of the case.
        names: The class names by label value.
        min_volume_ml: Components below this volume are left out.
        organs: The label values of organs.
    """
    findings = []
    min_voxels = min_volume_ml / grid.voxel_ml() * (1 - 1e-9)
    for label, name in sorted(names.items(), key=lambda item: item[0] in organs):
        numbers = structures.order(label, min_voxels)
        if len(numbers) > MAX_FINDINGS:
            warnings.warn(
                f"{case}: {name} has {len(numbers)} connected components; only the {MAX_FINDINGS} largest become "
                "findings",
                InputWarning,
                stacklevel=3,
            )
        for rank, number in enumerate(numbers[:MAX_FINDINGS], 1):
            sizes, voxels = measure_runs(structures.runs.select(number), grid), structures.summarize(number)
            location = (
                ""
                if label in organs
                else describe_location(sizes.centre_mm, sizes.radius_mm, structures, grid, names, organs)
            )
            finding = Finding(
                f"{case}-{label}-{rank}", case, label, name, **asdict(sizes), score=voxels.peak,
                uncertainty=voxels.uncertainty, kind="organ" if label in organs else "lesion",
                mean_intensity=voxels.mean, sd_intensity=voxels.sd, location=location,
            )  # fmt: skip
            findings.append(finding)
    return tuple(findings)


def label_components(mask: Bool[np.ndarray, "i j k"]) -> Integer[np.ndarray, "i j k"]:
    """Numbers the connected components of a mask from 1, as findings are: the largest first."""
    numbers, count = ndimage.label(mask, NEIGHBOURS_26)
    size = np.bincount(numbers[mask], minlength=count + 1)[1:]
    rank = np.zeros(count + 1, numbers.dtype)
    rank[1 + np.argsort(-size, kind="stable")] = np.arange(1, count + 1)
    return rank[numbers]


def measure_mask(mask: Bool[np.ndarray, "i j k"], corner: tuple[int, int, int], grid: Volume) -> Sizes:
    """Measures all voxels of a mask as one structure, as findings are measured.

    Args:
        mask: The voxels.
        corner: The index of the first voxel of the mask in the grid.
        grid: A volume on the grid.
    """
    runs = find_runs(order_as_file(mask, slice(0, mask.shape[2])), np.array(corner))
    return measure_runs(runs, grid)

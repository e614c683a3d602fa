"""Finds settings that cannot work on the scans of a store, or that waste most of a training."""

import logging
from typing import Any

import numpy as np
from jaxtyping import Float

from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.planning.network_geometry import Triple, padding_fraction
from medssl.volume import Spacing

log = logging.getLogger(__name__)

MAX_PADDING, MANY_PADDING = 0.75, 0.4  # fraction of padding that is refused, and that is warned of
THIN_VOXELS = 8  # along an axis: fewer are a localizer or a slab
MAX_EXTENT_RATIO = 4.0  # of the extents of two scans along an axis: more are different parts of the body
MIN_CROPS_PER_VOLUME = 50


def check_training(patch_size: Triple, cases: Manifest, num_crops: int) -> None:
    """Warns of a training that cannot bring much, by the scans that it trains on.

    Args:
        patch_size: Voxels of a crop.
        cases: The cases to train on.
        num_crops: Number of crops of the whole training.

    Raises:
        BadInput: Crops are almost entirely padding.
    """
    shapes = np.array([case.shape for case in cases.cases], float)
    spacing: Any = tuple(np.median([case.spacing_mm for case in cases.cases], axis=0).tolist())
    padding = check_patch_size(patch_size, shapes, str(cases.folder))
    mixed, rare = describe_mixed_grids(shapes, spacing), describe_few_crops(num_crops, len(shapes))
    for text in [*filter(None, [padding]), *mixed, *rare]:
        log.warning("warning: %s", text)


def check_patch_size(patch_size: Triple, shapes: Float[np.ndarray, "n 3"], source: str) -> str:
    """Returns a warning if crops are padded much; "" if they are not.

    Args:
        patch_size: Voxels of a crop.
        shapes: Voxels of each scan.
        source: The manifest, for the message.

    Raises:
        BadInput: Crops are almost entirely padding.
    """
    fraction = padding_fraction(patch_size, shapes)
    if fraction <= MANY_PADDING:
        return ""
    i, j, k = patch_size
    median = " x ".join(f"{n:g}" for n in np.median(shapes, axis=0))
    message = (
        f"patch_size [{i}, {j}, {k}]: {fraction:.0%} of a crop lies outside the scans of {source}, which have {median}"
        " voxels in the median; give a smaller patch_size, or patch_size=auto encoder=auto"
    )
    if fraction > MAX_PADDING:
        raise BadInput(message)
    return message


def describe_mixed_grids(shapes: Float[np.ndarray, "n 3"], spacing_mm: Spacing) -> list[str]:
    """Returns warnings of scans that do not belong on one grid: slabs, localizers, different parts of the body."""
    warnings = []
    thin = int((shapes.min(1) < THIN_VOXELS).sum())
    if thin:
        warnings.append(
            f"{thin} of {len(shapes)} volumes have fewer than {THIN_VOXELS} voxels along an axis, like localizers or"
            " slabs; leave them out, or ingest with a finer --spacing"
        )
    extents = shapes * np.array(spacing_mm)
    ratios = np.percentile(extents, 95, axis=0) / np.percentile(extents, 5, axis=0)
    if ratios.max() > MAX_EXTENT_RATIO:
        axis = int(np.argmax(ratios))
        low, high = np.percentile(extents[:, axis], (5, 95))
        warnings.append(
            f"the scans differ in size, from {low:.0f} to {high:.0f} mm along axis {'ijk'[axis]}: one grid and one crop"
            " suit none of heads, trunks and feet; ingest each part of the body into a store of its own"
        )
    return warnings


def describe_few_crops(num_crops: int, num_volumes: int) -> list[str]:
    """Returns a warning if a training sees each volume too seldom to learn from it."""
    if num_volumes == 0 or num_crops >= MIN_CROPS_PER_VOLUME * num_volumes:
        return []
    crops = f"{num_crops / num_volumes:.0f}" if num_crops >= num_volumes else "less than one"
    return [
        f"{num_crops} crops of {num_volumes} volumes are {crops} of each, fewer than {MIN_CROPS_PER_VOLUME};"
        " train for more steps, for example train.epochs"
    ]

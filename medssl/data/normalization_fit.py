"""Fitted: the recipe that a pool of scans asks for; val and test are not looked at."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medssl import config
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Card, Stored, read
from medssl.errors import BadInput, Doubt
from medssl.run import Run

PROBES = 256  # scans that are enough to measure a pool's percentiles on


def fitted(manifest: Manifest, recipe: Recipe) -> Recipe:
    """The recipe with the window of the pool's CTs and the landmarks of its other scans, as far as there are any."""
    units = {case.unit for case in manifest.by("train").cases}
    windowed_ = windowed(manifest, recipe) if "HU" in units or not units else recipe
    return standardised(manifest, windowed_) if units - {"HU"} else windowed_


def windowed(manifest: Manifest, recipe: Recipe) -> Recipe:
    """The recipe with its percentiles of all bodies as the window."""
    scans = [case for case in manifest.by("train").cases if case.unit == "HU"]
    if not scans:
        kept = "{:g},{:g}".format(*recipe.window_hu)
        warnings.warn(f"no CT in split train to fit a window to: {kept} HU stays", Doubt, stacklevel=2)
        return recipe
    bodies = np.concatenate([_body(read(manifest.path(case))) for case in _some(scans)])
    low, high = (float(v) for v in np.rint(np.percentile(bodies, recipe.percentiles)))
    return recipe.model_copy(update={"window_hu": (low, max(high, low + 1))})


def standardised(manifest: Manifest, recipe: Recipe) -> Recipe:
    """The recipe with the mean place of each decile as its landmark, over the most frequent kind of scan.

    A channel of CT among others has no landmarks, as it was windowed when it was prepared.
    """
    scans = [case for case in manifest.by("train").cases if case.unit != "HU"]
    ((kind, _),) = Counter((case.modality, case.channels) for case in scans).most_common(1)
    found = [read(manifest.path(c)).deciles for c in _some([c for c in scans if (c.modality, c.channels) == kind])]
    mean = np.mean([d.clip(0, 1) for d in found if d is not None], axis=0, dtype=float).round(4).tolist()
    rows = tuple(() if channel in recipe.hu_channels else tuple(row) for channel, row in enumerate(mean))
    return recipe.model_copy(update={"landmarks": rows})


def taken(place: Path) -> Recipe:
    """The recipe of a store or of a run."""
    if (place / "run.json").is_file():
        return config.check(Run.open(place).card["network"]["recipe"], Recipe, str(place / "run.json"))
    if (place / "store.json").is_file():
        return Card.read(place).recipe
    raise BadInput(f"{place}: neither a store nor a run, whose recipe could be taken; give the folder of one")


def _some(scans: list[Case]) -> list[Case]:
    return scans[:: -(-len(scans) // PROBES)]


def _body(scan: Stored) -> Shaped[np.ndarray, "n"]:
    """Values at the points kept of a scan's body: every scan counts the same, however large it is."""
    i, j, k = scan.points["body"].T
    return scan.volume().voxels[0, i, j, k]

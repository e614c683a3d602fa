"""Window: the HU that the bodies of a pool hold."""

import warnings

import numpy as np
from jaxtyping import Shaped

from medssl.data.manifest import Manifest
from medssl.data.normalise import Recipe
from medssl.data.store import Stored, read
from medssl.errors import Doubt

PROBES = 256  # scans that are enough to measure a pool's percentiles on


def fitted(manifest: Manifest, recipe: Recipe) -> Recipe:
    """The recipe with its percentiles of the body in split train as the window; val and test are not looked at."""
    scans = [case for case in manifest.by("train").cases if case.unit == "HU"]
    if not scans:
        kept = "{:g},{:g}".format(*recipe.window_hu)
        warnings.warn(f"no CT in split train to fit a window to: {kept} HU stays", Doubt, stacklevel=2)
        return recipe
    some = scans[:: -(-len(scans) // PROBES)]
    bodies = np.concatenate([_body(read(manifest.path(case))) for case in some])
    low, high = (float(v) for v in np.rint(np.percentile(bodies, recipe.percentiles)))
    return recipe.model_copy(update={"window_hu": (low, max(high, low + 1))})


def _body(scan: Stored) -> Shaped[np.ndarray, "n"]:
    """Values at the points kept of a scan's body: every scan counts the same, however large it is."""
    i, j, k = scan.points["body"].T
    return scan.volume().voxels[0, i, j, k]

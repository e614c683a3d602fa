"""Fits the intensity normalization to the training scans of a store, and loads a fitted one."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medssl import config
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.store import StoredVolume, read
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput, InputWarning
from medssl.run import Run

MAX_SCANS = 256  # scans that suffice for the percentiles of a store


def fit_normalization(manifest: Manifest, normalization: IntensityNormalization) -> IntensityNormalization:
    """Fits the window if split train has CT scans, and the landmarks if it has other scans."""
    units = {case.unit for case in manifest.in_split("train").cases}
    fitted = fit_window(manifest, normalization) if "HU" in units or not units else normalization
    return fit_landmarks(manifest, fitted) if units - {"HU"} else fitted


def fit_window(manifest: Manifest, normalization: IntensityNormalization) -> IntensityNormalization:
    """Sets the window to the percentiles of the bodies of all CT scans in split train."""
    scans = [case for case in manifest.in_split("train").cases if case.unit == "HU"]
    if not scans:
        window = "{:g},{:g}".format(*normalization.window_hu)
        warnings.warn(
            f"no CT in split train to fit a window to; keeping the window {window} HU", InputWarning, stacklevel=2
        )
        return normalization
    bodies = np.concatenate([_read_body_values(read(manifest.path(case))) for case in _select_evenly(scans)])
    low, high = (float(v) for v in np.rint(np.percentile(bodies, normalization.percentiles)))
    return normalization.model_copy(update={"window_hu": (low, max(high, low + 1))})


def fit_landmarks(manifest: Manifest, normalization: IntensityNormalization) -> IntensityNormalization:
    """Sets the landmarks to the mean of each decile over the scans in split train that are not CT.

    Only the most frequent combination of modality and number of channels is used. CT channels that are mixed with MR
    have no landmarks, since they were windowed when they were stored.
    """
    scans = [case for case in manifest.in_split("train").cases if case.unit != "HU"]
    ((kind, _),) = Counter((case.modality, case.channels) for case in scans).most_common(1)
    selected = _select_evenly([case for case in scans if (case.modality, case.channels) == kind])
    deciles = [read(manifest.path(case)).deciles for case in selected]
    mean = np.mean([d.clip(0, 1) for d in deciles if d is not None], axis=0, dtype=float).round(4).tolist()
    rows = tuple(() if channel in normalization.hu_channels else tuple(row) for channel, row in enumerate(mean))
    return normalization.model_copy(update={"landmarks": rows})


def load_normalization(folder: Path) -> IntensityNormalization:
    """Loads the normalization of the store or the run in a folder."""
    if (folder / "run.json").is_file():
        return config.check(
            Run.open(folder).metadata["network"]["normalization"], IntensityNormalization, str(folder / "run.json")
        )
    if (folder / "store.json").is_file():
        return StoreMetadata.read(folder).normalization
    raise BadInput(
        f"{folder}: neither a store nor a run, so it has no normalization; give the folder of a store or a run"
    )


def _select_evenly(scans: list[Case]) -> list[Case]:
    """Returns every n-th scan, at most MAX_SCANS of them."""
    return scans[:: -(-len(scans) // MAX_SCANS)]


def _read_body_values(scan: StoredVolume) -> Shaped[np.ndarray, "n"]:
    """Reads the voxels at a scan's sample points, so that large and small scans have equal weight."""
    i, j, k = scan.sample_points["body"].T
    return scan.volume().voxels[0, i, j, k]

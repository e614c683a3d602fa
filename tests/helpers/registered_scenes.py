"""Writes a store of scans of one synthetic scene, shifted differently in each scan, with optional labels."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.volume import Volume

SHAPE = (26, 30, 22)
OFFSETS = ((0, 0, 0), (2, 0, 0), (0, -2, 0), (0, 0, 2), (-2, 2, 0))  # of the contents of each scan, in voxels
NAMES = {1: "rod", 2: "ball"}


def draw_scene(offset=(0, 0, 0)) -> np.ndarray:
    """Draws rods and balls of several brightnesses, all shifted by one offset."""
    label, (i, j, _) = draw_classes(offset), _scene_coordinates(offset)
    x = 0.2 + 0.5 * (label == 1) + 0.3 * (np.hypot(j - 20, i - 17) < 4) + 0.2 * (label == 2)
    return ndimage.gaussian_filter(x, 0.7)


def draw_classes(offset=(0, 0, 0)) -> np.ndarray:
    """Draws the label values of the rod and the ball of a scene."""
    i, j, k = _scene_coordinates(offset)
    rod, ball = np.hypot(i - 9, k - 8) < 4, np.sqrt((i - 18) ** 2 + (j - 9) ** 2 + (k - 14) ** 2) < 5
    return np.where(rod, 1, 2 * ball).astype(np.uint8)


def write_scans(folder: Path, offsets=OFFSETS, split: str = "train", labelled: bool = False) -> Path:
    """Writes a scan for each offset, the first one in split train, and returns the path of the manifest."""
    folder.mkdir()
    cases = []
    for n, offset in enumerate(offsets):
        noise = np.random.default_rng(n).normal(0, 0.01, SHAPE)
        image = Volume((draw_scene(offset) + noise).astype(np.float16)[None], np.eye(4), "a.u.")
        sha = store.write(folder / f"c{n}.b2nd", image, {})
        label = f"l{n}.b2nd" if labelled else None
        if label:
            store.write(folder / label, Volume(draw_classes(offset), np.eye(4), "label"), {})
        row = (f"c{n}", f"p{n}", f"c{n}.b2nd", label, "MR", "a.u.", (1.0, 1.0, 1.0), SHAPE, 1)
        cases.append(Case(*row, split if n else "train", "", sha))
    StoreMetadata(labels=NAMES if labelled else {}).write(folder)
    Manifest(tuple(cases), folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"


def _scene_coordinates(offset) -> list[np.ndarray]:
    """Computes the coordinates i, j, k in the unshifted scene of every voxel."""
    return [axis - shift for axis, shift in zip(np.indices(SHAPE, float), offset, strict=True)]

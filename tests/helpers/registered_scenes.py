"""Scans of one scene whose contents lie elsewhere in each of them, with what is drawn there, if asked."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card
from medssl.volume import Volume

SIDES = (26, 30, 22)
MOVES = ((0, 0, 0), (2, 0, 0), (0, -2, 0), (0, 0, 2), (-2, 2, 0))  # voxels, of each scan's contents
NAMES = {1: "rod", 2: "ball"}


def scene(moved=(0, 0, 0)) -> np.ndarray:
    """Rods and balls of several brightnesses, all moved alike."""
    label, (i, j, _) = classes(moved), _places(moved)
    x = 0.2 + 0.5 * (label == 1) + 0.3 * (np.hypot(j - 20, i - 17) < 4) + 0.2 * (label == 2)
    return ndimage.gaussian_filter(x, 0.7)


def classes(moved=(0, 0, 0)) -> np.ndarray:
    """The number of what is drawn at each voxel of a scene."""
    i, j, k = _places(moved)
    rod, ball = np.hypot(i - 9, k - 8) < 4, np.sqrt((i - 18) ** 2 + (j - 9) ** 2 + (k - 14) ** 2) < 5
    return np.where(rod, 1, 2 * ball).astype(np.uint8)


def scans(folder: Path, moves=MOVES, split: str = "train", labelled: bool = False) -> Path:
    """The manifest of a store of scans of the scene; the first is of split train."""
    folder.mkdir()
    cases = []
    for n, moved in enumerate(moves):
        noise = np.random.default_rng(n).normal(0, 0.01, SIDES)
        image = Volume((scene(moved) + noise).astype(np.float16)[None], np.eye(4), "a.u.")
        sha = store.write(folder / f"c{n}.b2nd", image, {})
        drawn = f"l{n}.b2nd" if labelled else None
        if drawn:
            store.write(folder / drawn, Volume(classes(moved), np.eye(4), "label"), {})
        row = (f"c{n}", f"p{n}", f"c{n}.b2nd", drawn, "MR", "a.u.", (1.0, 1.0, 1.0), SIDES, 1)
        cases.append(Case(*row, split if n else "train", "", sha))
    Card(labels=NAMES if labelled else {}).write(folder)
    Manifest(tuple(cases), folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"


def _places(moved) -> list[np.ndarray]:
    return [axis - m for axis, m in zip(np.indices(SIDES, float), moved, strict=True)]

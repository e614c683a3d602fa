"""Parcels: labels that nobody drew, the pieces of an atlas of scans that show the same place, brought to each scan.

A network that has learnt to say them knows where in the body it is before it sees the first drawn label. That classes
found by where they lie teach more than one scan's pixels is from Haghighi et al., "Transferable visual words" (2021),
https://arxiv.org/abs/2102.10680, that correspondence between scans does from He et al., "Geometric visual similarity
learning" (CVPR 2023), https://arxiv.org/abs/2303.00874. The atlas is the mean of the scans, each registered to the last
such mean, as in Joshi et al., "Unbiased diffeomorphic atlas construction" (2004),
https://doi.org/10.1016/j.neuroimage.2004.07.068, by the demons of Vercauteren et al., "Diffeomorphic demons" (2009),
https://doi.org/10.1016/j.neuroimage.2008.10.040, of SimpleITK.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32, Int, Shaped
from pydantic import Field
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.settings import Settings
from medssl.volume import Volume

Grid = tuple[int, int, int]
Watch = Callable[[str, int, int], None]
FINEST = 64  # voxels of the atlas along an axis, at most
ROUNDS = ((2.0, 30), (2.0, 30), (1.5, 30), (1.0, 60))  # smoothness in voxels, and steps, of each round of registration
LAST = (0.8, 100)
BRIGHT = 0.9  # what a standard deviation of intensity counts beside the width of a parcel


class Options(Settings):
    """How many parcels, of which cases."""

    parcels: int = Field(64, ge=2, le=255)
    split: str = "train"
    seed: int = Field(0, ge=0, description="of where the parcels begin")


@dataclass(frozen=True)
class Made:
    """What came of it: the manifest, and how alike scans and atlas are, as correlation, before and after."""

    manifest: Path
    before: float
    after: float


def make(place: Path, out: Path, options: Options, watch: Watch) -> Made:
    """Writes a store that has the images of another and parcels for labels; of its cases, those of one split.

    Scans are laid over each other by their extents before they are registered: they have to show the same place.
    """
    pool = Manifest.read(place).by(options.split)
    if len(pool.cases) < 2:
        raise BadInput(f"{place}: split {options.split!r} holds {len(pool.cases)} cases; an atlas takes two or more")
    if out.exists():
        raise BadInput(f"{out}: is there already; choose another --out, or delete it")
    scans = Scans(pool)
    atlas = scans.mean()
    before = float(np.mean([_alike(atlas, x) for _, x in scans]))
    for count, (smooth, steps) in enumerate(ROUNDS, 1):
        atlas = scans.registered(atlas, smooth, steps, partial(watch, f"round {count}"))
    parcels = pieces(atlas, options.parcels, options.seed)
    cases, alike = [], []
    for done, one in enumerate(scans.moves(atlas, *LAST), 1):
        cases.append(_written(scans, one, parcels, out))
        alike.append(_alike(_sampled(atlas, one.places), one.x))
        watch("labels", done, len(pool.cases))
    names = {n: f"parcel {n}" for n in range(1, int(parcels.max()) + 1)}
    card = Card.read(pool.folder)
    card.model_copy(update={"labels": names, "present_labels": {}, "regions": {}}).write(out)
    Manifest(tuple(cases), out).write(out / "manifest.csv")
    return Made(out / "manifest.csv", before, float(np.mean(alike)))


class Moved(NamedTuple):
    """A case, its scan on the grid of an atlas, and where in the atlas, in voxels, each voxel of that grid lies."""

    case: Case
    x: Float32[np.ndarray, "i j k"]
    places: Float32[np.ndarray, "3 i j k"]


class Scans:
    """The scans of a pool on one grid, which spans the extent of each, with mean 0 and variance 1."""

    def __init__(self, pool: Manifest) -> None:
        self.pool, self.recipe, self.store = pool, Card.read(pool.folder).recipe, Store(pool)
        sides = np.median([case.shape for case in pool.cases], axis=0)
        i, j, k = (int(min(n, FINEST)) for n in sides)
        self.grid: Grid = (i, j, k)

    def __iter__(self) -> Iterator[tuple[Case, Float32[np.ndarray, "i j k"]]]:
        """Every case, and its first channel on the grid."""
        for case in self.pool.cases:
            stored = self.store.image(case)
            x = stored.input(self.recipe).reshape(-1, *stored.shape)[0]
            x = _sampled(x, spread(self.grid, stored.shape))
            yield case, (x - x.mean()) / max(float(x.std()), 1e-6)

    def mean(self) -> Float32[np.ndarray, "i j k"]:
        """What scans show that are laid over each other by their extents."""
        return np.mean([x for _, x in self], axis=0)

    def moves(self, atlas: Float32[np.ndarray, "i j k"], smooth: float, steps: int) -> Iterator[Moved]:
        """Every case, registered to an atlas."""
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(steps)
        demons.SetStandardDeviations(smooth)
        moving = sitk.GetImageFromArray(atlas.astype(np.float32))
        for case, x in self:
            # SimpleITK's arrays run k j i, its vectors along the array's last axis first: here that axis is ours.
            field = sitk.GetArrayFromImage(demons.Execute(sitk.GetImageFromArray(x), moving))
            yield Moved(case, x, np.indices(self.grid, np.float32) + np.moveaxis(field, -1, 0)[::-1].astype(np.float32))

    def registered(
        self, atlas: Float32[np.ndarray, "i j k"], smooth: float, steps: int, watch: Callable[[int, int], None]
    ) -> Float32[np.ndarray, "i j k"]:
        """The mean of the scans, each brought to the atlas."""
        total, count = np.zeros(self.grid), np.zeros(self.grid)
        for done, (_, x, places) in enumerate(self.moves(atlas, smooth, steps), 1):
            at = np.rint(places).astype(int)
            inside = np.logical_and.reduce([(a >= 0) & (a < n) for a, n in zip(at, self.grid, strict=True)])
            flat = np.ravel_multi_index(tuple(a[inside] for a in at), self.grid)
            total += np.bincount(flat, x[inside], total.size).reshape(self.grid)
            count += np.bincount(flat, minlength=total.size).reshape(self.grid)
            watch(done, len(self.pool.cases))
        # A voxel of the atlas that few scans were brought to takes the mean of its neighbours.
        near = ndimage.gaussian_filter(total, 0.6) / (ndimage.gaussian_filter(count, 0.6) + 1e-3)
        return near.astype(np.float32)


def pieces(atlas: Float32[np.ndarray, "i j k"], count: int, seed: int) -> Int[np.ndarray, "i j k"]:
    """The voxels of an atlas in compact pieces of one brightness, numbered from 1; a few less where some stay empty."""
    width = (atlas.size / count) ** (1 / 3)
    features = np.stack([*(np.indices(atlas.shape) / width), BRIGHT * atlas / max(float(atlas.std()), 1e-6)])
    rows = features.reshape(4, -1).T
    begin = rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]
    _, of = kmeans2(rows, begin, iter=30, minit="matrix", missing="warn")
    _, of = np.unique(of, return_inverse=True)
    return of.reshape(atlas.shape).astype(np.int64) + 1


def spread(shape: Sequence[int], over: Sequence[int]) -> Float32[np.ndarray, "3 i j k"]:
    """Where the voxels of a grid lie, as voxel indices of another that spans the same extent."""
    scale = np.array(over) / np.array(shape)
    index = np.moveaxis(np.indices(tuple(shape), np.float32), 0, -1)
    return np.moveaxis((index + 0.5) * scale - 0.5, -1, 0).astype(np.float32)


def _written(scans: Scans, moved: Moved, parcels: Int[np.ndarray, "i j k"], out: Path) -> Case:
    """Writes the parcels of a case on its own grid; gives its row of the new manifest."""
    case, stored = moved.case, scans.store.image(moved.case)
    back = spread(stored.shape, scans.grid)
    at = np.stack([_sampled(axis, back) for axis in moved.places])
    name = f"labels/{case.id}.b2nd"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    sha = store.write(out / name, Volume(_nearest(parcels, at), stored.affine, "label"), stored.about())
    return replace(case, image=os.path.relpath(scans.pool.path(case), out), label=name, label_sha256=sha)


def _sampled(x: Float32[np.ndarray, "i j k"], at: Float32[np.ndarray, "3 p q r"]) -> Float32[np.ndarray, "p q r"]:
    return ndimage.map_coordinates(x, at, order=1, mode="nearest")


def _alike(a: Float32[np.ndarray, "i j k"], b: Float32[np.ndarray, "i j k"]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _nearest(parcels: Int[np.ndarray, "i j k"], at: Float32[np.ndarray, "3 p q r"]) -> Shaped[np.ndarray, "p q r"]:
    i, j, k = (np.rint(axis).astype(int).clip(0, n - 1) for axis, n in zip(at, parcels.shape, strict=True))
    return parcels[i, j, k].astype(np.uint8)

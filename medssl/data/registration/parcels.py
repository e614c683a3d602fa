"""Parcels: labels that nobody drew, the pieces of an atlas of scans that show the same place, brought to each scan.

A network that has learnt to say them knows where in the body it is before it sees the first drawn label. That classes
found by where they lie teach more than one scan's pixels is from Haghighi et al., "Transferable visual words" (2021),
https://arxiv.org/abs/2102.10680, that correspondence between scans does from He et al., "Geometric visual similarity
learning" (CVPR 2023), https://arxiv.org/abs/2303.00874.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from pydantic import Field
from scipy.cluster.vq import kmeans2

from medssl.data.manifest import Case, Manifest
from medssl.data.registration import atlas
from medssl.data.registration.atlas import Grid, Image, Moved, Scans, Watch
from medssl.data.relabel import relabel
from medssl.errors import BadInput
from medssl.files import fresh
from medssl.settings import Settings
from medssl.volume import Volume

BRIGHT = 0.9  # what a standard deviation of intensity counts beside the width of a parcel


class Options(Settings):
    """How many parcels, of which cases."""

    parcels: int = Field(64, ge=2, le=255)
    split: str = "train"
    seed: int = Field(0, ge=0, description="of where the parcels begin")


@dataclass(frozen=True)
class Made:
    """What came of it: the manifest, how alike scans and atlas are, as correlation, before and after; and the atlas."""

    manifest: Path
    before: float
    after: float
    atlas: Volume
    parcels: Volume


def make(place: Path, out: Path, options: Options, watch: Watch) -> Made:
    """Writes an atlas: a store that has the images of another and parcels for labels, and where in it each case lies.

    It is of the cases of one split. Scans are laid over each other by their extents before they are registered: they
    have to show the same place.
    """
    pool = Manifest.read(place).by(options.split)
    if len(pool.cases) < 2:
        raise BadInput(f"{place}: split {options.split!r} holds {len(pool.cases)} cases; an atlas takes two or more")
    with fresh(out) as part:
        scans = Scans(pool)
        first = scans.mean()
        before = scans.alike(first)
        mean = atlas.register(scans, first, watch)
        parcels = pieces(mean, options.parcels, options.seed)
        names = {n: f"parcel {n}" for n in range(1, int(parcels.max()) + 1)}
        alike: list[float] = []

        def labels() -> Iterator[tuple[Case, Int[np.ndarray, "p q r"]]]:
            for done, one in enumerate(scans.moves(mean, *atlas.LAST), 1):
                atlas.save(part, one)
                yield one.case, _brought(parcels, one, scans.store.image(one.case).shape)
                alike.append(one.alike(mean))
                watch("labels", done, len(pool.cases))

        relabel(pool, names, labels(), part, out)
    shown = Volume(mean, scans.affine(), "a.u."), Volume(parcels, scans.affine(), "label")
    return Made(out / "manifest.csv", before, float(np.mean(alike)), *shown)


def pieces(atlas: Image, count: int, seed: int) -> Int[np.ndarray, "i j k"]:
    """The voxels of an atlas in compact pieces of one brightness, numbered from 1; a few less where some stay empty."""
    width = (atlas.size / count) ** (1 / 3)
    features = np.stack([*(np.indices(atlas.shape) / width), BRIGHT * atlas / max(float(atlas.std()), 1e-6)])
    rows = features.reshape(4, -1).T
    begin = rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]
    _, of = kmeans2(rows, begin, iter=30, minit="matrix", missing="warn")
    _, of = np.unique(of, return_inverse=True)
    return of.reshape(atlas.shape).astype(np.int64) + 1


def _brought(parcels: Int[np.ndarray, "i j k"], moved: Moved, shape: Grid) -> Int[np.ndarray, "p q r"]:
    """The parcels of a case, on its own grid of this shape."""
    at = np.rint(atlas.stretched(moved.places, shape)).astype(int)
    i, j, k = (axis.clip(0, n - 1) for axis, n in zip(at, parcels.shape, strict=True))
    return parcels[i, j, k]

"""Atlas: the mean of scans that show the same place, and where in it each voxel of each of them lies.

The mean is of the scans, each registered to the last such mean, as in Joshi et al., "Unbiased diffeomorphic atlas
construction" (2004), https://doi.org/10.1016/j.neuroimage.2004.07.068, by the demons of Vercauteren et al.,
"Diffeomorphic demons" (2009), https://doi.org/10.1016/j.neuroimage.2008.10.040, of SimpleITK.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32, Float64, Shaped
from scipy import ndimage

from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.files import atomic

Grid = tuple[int, int, int]
Image = Float32[np.ndarray, "i j k"]
Places = Float32[np.ndarray, "3 i j k"]
Watch = Callable[[str, int, int], None]
FOLDER = "displacements"
FINEST = 64  # voxels of the atlas along an axis, at most
ROUNDS = ((2.0, 30), (2.0, 30), (1.5, 30), (1.0, 60))  # smoothness in voxels, and steps, of each round of registration
LAST = (0.8, 100)
SOFT = 0.6  # voxels of the atlas, over which its voxels are told by their neighbours


class Atlas:
    """The atlas in a folder that `medssl atlas` wrote: where in it each of its cases lies."""

    def __init__(self, folder: Path) -> None:
        if not (folder / FOLDER).is_dir():
            raise BadInput(f"{folder}: no atlas ({FOLDER}/ is missing); `medssl atlas STORE/manifest.csv --out FOLDER`")
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.csv")
        self.cases = {case.id: case for case in self.manifest.cases}

    def holds(self, case: Case) -> bool:
        """Whether the case was laid over it, with these very voxels."""
        return case.id in self.cases and self.cases[case.id].sha256 == case.sha256

    def places(self, case: Case) -> Places:
        """Where in the atlas, in voxels, each voxel of its grid lies when that spans the extent of the case."""
        path = self.folder / FOLDER / f"{case.id}.npy"
        try:
            moves = np.load(path).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"{path}: is gone or damaged ({error}); run `medssl atlas` again") from None
        return np.indices(moves.shape[1:], np.float32) + moves


class Moved(NamedTuple):
    """A case, its scan on the grid of an atlas, and where in the atlas, in voxels, each voxel of that grid lies."""

    case: Case
    x: Image
    places: Places

    def alike(self, atlas: Image) -> float:
        """How alike the scan and the atlas are there, as correlation."""
        return _correlation(sampled(atlas, self.places), self.x)


class Scans:
    """The scans of a pool on one grid, which spans the extent of each, with mean 0 and variance 1."""

    def __init__(self, pool: Manifest) -> None:
        self.pool, self.recipe, self.store = pool, Card.read(pool.folder).recipe, Store(pool)
        sides = np.median([case.shape for case in pool.cases], axis=0)
        i, j, k = (int(min(n, FINEST)) for n in sides)
        self.grid: Grid = (i, j, k)

    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Of the grid, where it spans a scan of the usual extent; voxels to mm."""
        extents = np.median([np.multiply(case.shape, case.spacing_mm) for case in self.pool.cases], axis=0)
        return np.diag([*(extents / self.grid), 1.0])

    def __iter__(self) -> Iterator[tuple[Case, Image]]:
        """Every case, and its first channel on the grid."""
        for case in self.pool.cases:
            stored = self.store.image(case)
            x = stored.input(self.recipe).reshape(-1, *stored.shape)[0]
            x = sampled(x, spread(self.grid, stored.shape))
            yield case, (x - x.mean()) / max(float(x.std()), 1e-6)

    def mean(self) -> Image:
        """What scans show that are laid over each other by their extents."""
        return np.mean([x for _, x in self], axis=0)

    def alike(self, atlas: Image) -> float:
        """How alike an atlas and the scans are as they lie: the mean correlation."""
        return float(np.mean([_correlation(atlas, x) for _, x in self]))

    def moves(self, atlas: Image, smooth: float, steps: int) -> Iterator[Moved]:
        """Every case, registered to an atlas."""
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(steps)
        demons.SetStandardDeviations(smooth)
        moving = sitk.GetImageFromArray(atlas.astype(np.float32))
        for case, x in self:
            # SimpleITK's arrays run k j i, its vectors along the array's last axis first: here that axis is ours.
            field = sitk.GetArrayFromImage(demons.Execute(sitk.GetImageFromArray(x), moving))
            yield Moved(case, x, np.indices(self.grid, np.float32) + np.moveaxis(field, -1, 0)[::-1].astype(np.float32))

    def registered(self, atlas: Image, smooth: float, steps: int, watch: Callable[[int, int], None]) -> Image:
        """The mean of the scans, each brought to the atlas."""
        total, count = np.zeros(self.grid), np.zeros(self.grid)
        for done, moved in enumerate(self.moves(atlas, smooth, steps), 1):
            values, hits = gathered(np.stack([moved.x, np.ones_like(moved.x)]), moved.places)
            total, count = total + values, count + hits
            watch(done, len(self.pool.cases))
        return mean(total, count).astype(np.float32)


def register(scans: Scans, atlas: Image, watch: Watch) -> Image:
    """The atlas of scans, which begins as their mean as they lie."""
    for count, (smooth, steps) in enumerate(ROUNDS, 1):
        atlas = scans.registered(atlas, smooth, steps, partial(watch, f"round {count}"))
    return atlas


def save(folder: Path, moved: Moved) -> None:
    """Writes how far each voxel of a case is moved."""
    moves = moved.places - np.indices(moved.places.shape[1:], np.float32)
    with atomic(folder / FOLDER / f"{moved.case.id}.npy") as part, part.open("wb") as handle:
        np.save(handle, moves.astype(np.float16))


def gathered(x: Shaped[np.ndarray, "n i j k"], places: Places) -> Float64[np.ndarray, "n i j k"]:
    """The sums of what voxels hold, at the voxel of the atlas that lies nearest to each one's place."""
    grid = x.shape[1:]
    at = np.rint(places).astype(int)
    inside = np.logical_and.reduce([(a >= 0) & (a < n) for a, n in zip(at, grid, strict=True)])
    flat = np.ravel_multi_index(tuple(a[inside] for a in at), grid)
    return np.stack([np.bincount(flat, one[inside], inside.size).reshape(grid) for one in x])


def mean(total: Float64[np.ndarray, "i j k"], count: Float64[np.ndarray, "i j k"]) -> Float64[np.ndarray, "i j k"]:
    """What was gathered, a voxel; one that little was brought to takes the mean of its neighbours."""
    return ndimage.gaussian_filter(total, SOFT) / (ndimage.gaussian_filter(count, SOFT) + 1e-3)


def spread(shape: Sequence[int], over: Sequence[int]) -> Places:
    """Where the voxels of a grid lie, as voxel indices of another that spans the same extent."""
    scale = np.array(over) / np.array(shape)
    index = np.moveaxis(np.indices(tuple(shape), np.float32), 0, -1)
    return np.moveaxis((index + 0.5) * scale - 0.5, -1, 0).astype(np.float32)


def stretched(places: Places, shape: Sequence[int]) -> Float32[np.ndarray, "3 p q r"]:
    """The places of a case for the voxels of its own grid, which is of this shape."""
    back = spread(shape, places.shape[1:])
    return np.stack([sampled(axis, back) for axis in places])


def sampled(x: Image, at: Float32[np.ndarray, "3 p q r"]) -> Float32[np.ndarray, "p q r"]:
    """What an image has at places, in voxels; beyond its border, what is at its border."""
    return ndimage.map_coordinates(x, at, order=1, mode="nearest")


def _correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

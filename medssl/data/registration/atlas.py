"""Builds an atlas, the mean of registered scans of one body region, and maps voxels of each scan into it.

Each scan is registered to the mean of the previous round, as in Joshi et al., "Unbiased diffeomorphic atlas
construction" (2004), https://doi.org/10.1016/j.neuroimage.2004.07.068, with SimpleITK's version of the demons of
Vercauteren et al., "Diffeomorphic demons" (2009), https://doi.org/10.1016/j.neuroimage.2008.10.040.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Never

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float64

from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.registration import affine
from medssl.data.registration.grids import (
    GridShape,
    ImageArray,
    VoxelCoordinates,
    grid_coordinates,
    interpolate,
    resize_displacement,
    smoothed_mean,
    splat,
)
from medssl.data.store import Store, StoredVolume
from medssl.data.store_metadata import StoreMetadata
from medssl.data.worker_pool import RUN_HERE, JobRunner
from medssl.errors import BadInput
from medssl.files import atomic_file

AffineMatrix = Float64[np.ndarray, "4 4"]
Alignment = Literal["extent", "affine"]
ProgressCallback = Callable[[str, int, int], None]  # step, scans finished, all scans
DISPLACEMENTS_FOLDER = "displacements"
MAX_GRID_SIZE = 64  # voxels of the atlas along an axis
# Smoothing of the displacement in voxels, and iterations.
REGISTRATION_ROUNDS = ((2.0, 30), (2.0, 30), (1.5, 30), (1.0, 60))
FINAL_REGISTRATION = (0.8, 100)


class Atlas:
    """An atlas written by `medssl atlas`, with the deformation of each of its cases."""

    def __init__(self, folder: Path) -> None:
        if not (folder / DISPLACEMENTS_FOLDER).is_dir():
            raise BadInput(
                f"{folder}: no atlas ({DISPLACEMENTS_FOLDER}/ is missing); "
                "`medssl atlas STORE/manifest.csv --out FOLDER` builds one"
            )
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.csv")
        self.cases = {case.id: case for case in self.manifest.cases}

    def contains(self, case: Case) -> bool:
        """Returns whether the case was registered to the atlas, with exactly these voxels."""
        return case.id in self.cases and self.cases[case.id].sha256 == case.sha256

    def load_deformation(self, case: Case) -> VoxelCoordinates:
        """Loads the voxel coordinates in the atlas of each voxel of its grid laid over the extent of the case."""
        path = self.folder / DISPLACEMENTS_FOLDER / f"{case.id}.npy"
        try:
            displacement = np.load(path).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"{path}: is missing or damaged ({error}); run `medssl atlas` again") from None
        return np.indices(displacement.shape[1:], np.float32) + displacement


class RegisteredScan(NamedTuple):
    """A scan registered to an atlas.

    Attributes:
        case: The case.
        image: The scan on the grid of the atlas, laid over the extent of the scan.
        deformation: Voxel coordinates in the atlas of each voxel of `image`.
    """

    case: Case
    image: ImageArray
    deformation: VoxelCoordinates

    def correlate_with(self, atlas: ImageArray) -> float:
        """Computes Pearson's correlation of the scan with the deformed atlas."""
        return _correlation(interpolate(atlas, self.deformation), self.image)


@dataclass(frozen=True)
class RegistrationJob:
    """A scan that is to be registered to an atlas.

    Attributes:
        case: The case.
        folder: Folder of its manifest.
        normalization: Maps stored voxels to network input.
        atlas: Image on the grid of the atlas.
        start: Affine alignment from voxels of the scan to those of the atlas; None to find one.
        alignment: What registration starts from.
        sigma: Standard deviation, in voxels, of the smoothing of the displacement.
        steps: Iterations of the demons algorithm.
    """

    case: Case
    folder: Path
    normalization: IntensityNormalization
    atlas: ImageArray
    start: AffineMatrix | None
    alignment: Alignment
    sigma: float
    steps: int


class Registration(NamedTuple):
    """The scan on the grid of the atlas, its displacement in voxels, and its affine alignment, if it has one."""

    image: ImageArray
    displacement: VoxelCoordinates
    start: AffineMatrix | None


def register(job: RegistrationJob) -> Registration:
    """Registers a scan to an atlas."""
    grid, start = job.atlas.shape, job.start
    image = load_on_grid(Store(Manifest((job.case,), job.folder)).image(job.case), job.normalization, grid)
    displacement = np.zeros((3, *grid), np.float32)
    if job.alignment == "affine":
        start = affine.align_affine(image, job.atlas) if start is None else start
        displacement = affine.displace(start, grid)
        half = tuple(max(n // 2, min(n, affine.MIN_COARSE_SIDE)) for n in grid)
        coarse, coarse_atlas = (interpolate(each, grid_coordinates(half, grid)) for each in (image, job.atlas))
        displacement = resize_displacement(displacement, half)
        displacement = _run_demons(coarse, coarse_atlas, displacement, job.sigma, job.steps)
        displacement = resize_displacement(displacement, grid)
    return Registration(image, _run_demons(image, job.atlas, displacement, job.sigma, job.steps), start)


def load_on_grid(stored: StoredVolume, normalization: IntensityNormalization, grid: GridShape) -> ImageArray:
    """Loads the first channel of a scan on a grid over its extent, with mean 0 and variance 1."""
    x = stored.network_input(normalization).reshape(-1, *stored.shape)[0]
    x = interpolate(x, grid_coordinates(grid, stored.shape))
    return (x - x.mean()) / max(float(x.std()), 1e-6)


class GriddedScans:
    """Iterates over the scans of a manifest, resampled to one grid with mean 0 and variance 1.

    The grid is laid over the extent of each scan, whatever its size in mm.

    Args:
        manifest: Cases of the scans.
        alignment: What registration starts from: equal extents, or an affine alignment with the atlas, after which
            the scans are registered at half the resolution first.
        run_jobs: Runs the registrations, for example on a dask cluster.
    """

    def __init__(self, manifest: Manifest, alignment: Alignment = "extent", run_jobs: JobRunner = RUN_HERE) -> None:
        self.run_jobs = run_jobs
        self.alignment, self.affine_of_case = alignment, dict[str, Float64[np.ndarray, "4 4"]]()
        self.manifest, self.store = manifest, Store(manifest)
        self.normalization = StoreMetadata.read(manifest.folder).normalization
        median_shape = np.median([case.shape for case in manifest.cases], axis=0)
        i, j, k = (int(min(n, MAX_GRID_SIZE)) for n in median_shape)
        self.grid: GridShape = (i, j, k)

    def grid_affine(self) -> Float64[np.ndarray, "4 4"]:
        """Returns the affine, voxels to mm, of the grid laid over a scan of median extent."""
        extents = np.median([np.multiply(case.shape, case.spacing_mm) for case in self.manifest.cases], axis=0)
        return np.diag([*(extents / self.grid), 1.0])

    def __iter__(self) -> Iterator[tuple[Case, ImageArray]]:
        """Yields every case with its first channel on the grid."""
        for case in self.manifest.cases:
            yield case, load_on_grid(self.store.image(case), self.normalization, self.grid)

    def compute_mean(self) -> ImageArray:
        """Computes the mean of the scans without registration."""
        return np.mean([x for _, x in self], axis=0)

    def mean_correlation(self, atlas: ImageArray) -> float:
        """Computes the mean of Pearson's correlations of the scans, without registration, with an atlas."""
        return float(np.mean([_correlation(atlas, x) for _, x in self]))

    def register_all(self, atlas: ImageArray, sigma: float, steps: int) -> Iterator[RegisteredScan]:
        """Registers every scan to an atlas, and yields them in the order of the manifest.

        Args:
            atlas: Image on the grid.
            sigma: Standard deviation, in voxels, of the smoothing of the displacement.
            steps: Iterations of the demons algorithm.
        """
        jobs = (
            RegistrationJob(case, self.manifest.folder, self.normalization, atlas, self.affine_of_case.get(case.id),
                            self.alignment, sigma, steps)
            for case in self.manifest.cases
        )  # fmt: skip
        finished: dict[str, RegisteredScan] = {}
        waiting = deque(case.id for case in self.manifest.cases)
        for job, registration in self.run_jobs(jobs, register, _report_worker_death):
            if registration.start is not None:
                self.affine_of_case[job.case.id] = registration.start
            deformation = np.indices(self.grid, np.float32) + registration.displacement
            finished[job.case.id] = RegisteredScan(job.case, registration.image, deformation)
            while waiting and waiting[0] in finished:  # sums of the same order are the same to the bit
                yield finished.pop(waiting.popleft())

    def compute_registered_mean(
        self, atlas: ImageArray, sigma: float, steps: int, on_progress: Callable[[int, int], None]
    ) -> ImageArray:
        """Computes the mean of the scans after registration to an atlas; see `register_all`."""
        total, count = np.zeros(self.grid), np.zeros(self.grid)
        for number, scan in enumerate(self.register_all(atlas, sigma, steps), 1):
            values, hits = splat(np.stack([scan.image, np.ones_like(scan.image)]), scan.deformation)
            total, count = total + values, count + hits
            on_progress(number, len(self.manifest.cases))
        return smoothed_mean(total, count).astype(np.float32)


def _report_worker_death(job: RegistrationJob) -> Never:
    raise BadInput(f"{job.case.id}: its registration killed every worker, most often for lack of memory; free memory")


def refine_atlas(
    scans: GriddedScans, atlas: ImageArray, on_progress: ProgressCallback, rounds_folder: Path
) -> ImageArray:
    """Registers the scans to the atlas and averages them again, in several rounds of increasing detail.

    The atlas of each round is kept in a folder, from which the next call continues.
    """
    for number, (sigma, steps) in enumerate(REGISTRATION_ROUNDS, 1):
        path = rounds_folder / f"round{number}.npy"
        if path.is_file():
            atlas = np.load(path)
            continue
        atlas = scans.compute_registered_mean(atlas, sigma, steps, partial(on_progress, f"round {number}"))
        with atomic_file(path) as part, part.open("wb") as handle:
            np.save(handle, atlas)
    return atlas


def save_displacement(folder: Path, registered: RegisteredScan) -> None:
    """Writes the displacement of each voxel of a case, in voxels of the atlas, to the folder of an atlas."""
    displacement = registered.deformation - np.indices(registered.deformation.shape[1:], np.float32)
    path = folder / DISPLACEMENTS_FOLDER / f"{registered.case.id}.npy"
    with atomic_file(path) as part, part.open("wb") as handle:
        np.save(handle, displacement.astype(np.float16))


def _run_demons(
    fixed: ImageArray, moving: ImageArray, start: VoxelCoordinates, sigma: float, steps: int
) -> VoxelCoordinates:
    """Returns the displacement in voxels from `fixed` to `moving` by the demons algorithm; see `register_all`."""
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(steps)
    demons.SetStandardDeviations(sigma)
    # SimpleITK orders array axes k j i and vector components i j k. Our array runs i j k, so that the first component
    # belongs to our last axis.
    vectors = np.ascontiguousarray(np.moveaxis(start[::-1], 0, -1).astype(np.float64))
    images = [sitk.GetImageFromArray(image.astype(np.float32)) for image in (fixed, moving)]
    field = demons.Execute(*images, sitk.GetImageFromArray(vectors, isVector=True))
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)[::-1].astype(np.float32)


def _correlation(a: ImageArray, b: ImageArray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

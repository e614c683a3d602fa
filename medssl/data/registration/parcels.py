"""Divides an atlas into parcels and maps them to each scan, as labels that need no annotation.

A network trained on parcels learns where in the body it is before it sees the first annotated label. Haghighi et al.,
"Transferable visual words" (2021), https://arxiv.org/abs/2102.10680, show that classes defined by position teach more
than the pixels of one scan; He et al., "Geometric visual similarity learning" (CVPR 2023),
https://arxiv.org/abs/2303.00874, show the same for correspondence between scans.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from pydantic import Field
from scipy.cluster.vq import kmeans2

from medssl.data.manifest import Case, Manifest
from medssl.data.registration import atlas
from medssl.data.registration.atlas import Alignment, GriddedScans, ProgressCallback, RegisteredScan
from medssl.data.registration.grids import GridShape, ImageArray, resample_deformation
from medssl.data.relabel import relabel
from medssl.data.worker_pool import RUN_HERE, JobRunner
from medssl.errors import BadInput
from medssl.files import atomic_folder, write_text
from medssl.settings import Settings
from medssl.volume import Volume

MIN_CORRELATION = 0.6  # of a scan with the atlas, below which they hardly show the same
INTENSITY_WEIGHT = 0.9  # weight of a standard deviation of intensity relative to the width of a parcel


class AtlasConfig(Settings):
    """Which cases form the atlas, and into how many parcels it is divided."""

    num_parcels: int = Field(64, ge=2, le=255, description="number of parcels; fewer if some stay empty")
    split: str = Field("train", description="split that the cases of the atlas belong to")
    seed: int = Field(0, ge=0, description="seed of the initial parcel centres")
    alignment: Alignment = Field(
        "extent", description="what registration starts from: equal extents of the scans, or an affine alignment"
    )


@dataclass(frozen=True)
class AtlasResult:
    """An atlas that was written.

    Attributes:
        manifest: Path of the manifest of the new store.
        correlation_before: Mean correlation of scans and atlas without registration.
        correlation_after: Mean correlation of scans and atlas after registration.
        atlas: The mean of the registered scans.
        parcels: Parcels of the atlas.
        poorly_aligned: Cases that correlate with the atlas by less than `MIN_CORRELATION`, with their correlation.
    """

    manifest: Path
    correlation_before: float
    correlation_after: float
    atlas: Volume
    parcels: Volume
    poorly_aligned: Mapping[str, float]


def build_atlas(
    manifest_path: Path,
    out: Path,
    config: AtlasConfig,
    on_progress: ProgressCallback,
    run_jobs: JobRunner = RUN_HERE,
) -> AtlasResult:
    """Writes a store with parcels as labels, the images of an existing store and the deformation of each case.

    All scans must show the same body region. A call that was stopped continues after its last finished round, whose
    atlas lies in a hidden folder next to the new store until the store is written.

    Args:
        manifest_path: manifest.csv of the existing store; its labels are not used.
        out: Folder of the new store.
        config: Which cases to use, and the number of parcels.
        on_progress: Called with the name of the step, the scans finished and all scans.
        run_jobs: Runs the registrations, see `GriddedScans`.
    """
    manifest = Manifest.read(manifest_path).in_split(config.split)
    if len(manifest.cases) < 2:
        raise BadInput(
            f"{manifest_path}: split {config.split!r} holds {len(manifest.cases)} cases; an atlas needs two or more"
        )
    rounds_folder = _open_rounds(out, manifest, config)
    with atomic_folder(out) as part:
        scans = GriddedScans(manifest, config.alignment, run_jobs)
        initial = scans.compute_mean()
        correlation_before = scans.mean_correlation(initial)
        mean = atlas.refine_atlas(scans, initial, on_progress, rounds_folder)
        parcels = parcellate(mean, config.num_parcels, config.seed)
        names = {n: f"parcel {n}" for n in range(1, int(parcels.max()) + 1)}
        correlations: dict[str, float] = {}

        def generate_labels() -> Iterator[tuple[Case, Int[np.ndarray, "p q r"]]]:
            for number, scan in enumerate(scans.register_all(mean, *atlas.FINAL_REGISTRATION), 1):
                atlas.save_displacement(part, scan)
                yield scan.case, _warp_parcels(parcels, scan, scans.store.image(scan.case).shape)
                correlations[scan.case.id] = scan.correlate_with(mean)
                on_progress("labels", number, len(manifest.cases))

        relabel(manifest, names, generate_labels(), part, out)
    shutil.rmtree(rounds_folder)
    affine = scans.grid_affine()
    return AtlasResult(
        manifest=out / "manifest.csv",
        correlation_before=correlation_before,
        correlation_after=float(np.mean(list(correlations.values()))),
        atlas=Volume(mean, affine, "a.u."),
        parcels=Volume(parcels, affine, "label"),
        poorly_aligned={name: value for name, value in correlations.items() if value < MIN_CORRELATION},
    )


def _open_rounds(out: Path, manifest: Manifest, config: AtlasConfig) -> Path:
    """Returns the folder of finished rounds; one of other cases or another alignment is emptied."""
    folder, key = out.with_name(f".{out.name}-rounds"), f"{manifest.digest()} {config.alignment}"
    key_file = folder / "key.txt"
    if folder.exists() and not (key_file.is_file() and key_file.read_text() == key):
        shutil.rmtree(folder)
    write_text(key_file, key)
    return folder


def parcellate(atlas: ImageArray, count: int, seed: int) -> Int[np.ndarray, "i j k"]:
    """Divides an atlas into compact parcels of similar intensity by k-means over position and intensity.

    Args:
        atlas: Image to divide.
        count: Number of parcels; the result has fewer if some stay empty.
        seed: Seed of the initial parcel centres.

    Returns:
        The parcel of each voxel, numbered from 1.
    """
    width = (atlas.size / count) ** (1 / 3)
    features = np.stack([*(np.indices(atlas.shape) / width), INTENSITY_WEIGHT * atlas / max(float(atlas.std()), 1e-6)])
    points = features.reshape(4, -1).T
    centres = points[np.random.default_rng(seed).choice(len(points), count, replace=False)]
    _, parcel_of_voxel = kmeans2(points, centres, iter=30, minit="matrix", missing="warn")
    _, parcel_of_voxel = np.unique(parcel_of_voxel, return_inverse=True)
    return parcel_of_voxel.reshape(atlas.shape).astype(np.int64) + 1


def _warp_parcels(
    parcels: Int[np.ndarray, "i j k"], registered: RegisteredScan, shape: GridShape
) -> Int[np.ndarray, "p q r"]:
    """Maps the parcels of the atlas to the grid, of this shape, of a case."""
    nearest = np.rint(resample_deformation(registered.deformation, shape)).astype(int)
    i, j, k = (axis.clip(0, n - 1) for axis, n in zip(nearest, parcels.shape, strict=True))
    return parcels[i, j, k]

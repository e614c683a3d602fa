"""Makes a store about 50 times smaller, by keeping cubes of voxels as numbers of words."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.storage.codebook import CODEBOOK, MAX_WORDS, Codebook
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import atomic_folder, write_checksums

MAX_CUBES, CUBES_OF_CASE = 100_000, 2_000  # that k-means sees


@dataclass(frozen=True)
class Compression:
    """What a compression saved and lost.

    Attributes:
        cases: Number of cases.
        bytes_before: Bytes of the image files.
        bytes_after: Bytes of the new image files and of their words.
        raw_bytes: Bytes of the voxels without any compression.
        psnr_db: Median over cases of the peak signal-to-noise ratio, for the range between the permilles of a case.
    """

    cases: int
    bytes_before: int
    bytes_after: int
    raw_bytes: int
    psnr_db: float

    def describe(self) -> str:
        """Returns the figures as a sentence."""
        before, after, raw = (size / 1e6 for size in (self.bytes_before, self.bytes_after, self.raw_bytes))
        return (
            f"{self.cases} cases, {after:.1f} MB for {before:.1f} MB in the store ({before / after:.0f} times smaller)"
            f" and {raw:.1f} MB of voxels ({raw / after:.0f} times); median PSNR {self.psnr_db:.1f} dB"
        )


def compress_store(
    manifest: Manifest,
    out: Path,
    cell: int = 4,
    num_words: int = MAX_WORDS,
    num_stages: int = 2,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compression:
    """Writes a store whose images are numbers of words; labels are copied.

    Every command reads it as it reads the original, with the voxels that the words stand for.

    Args:
        manifest: The cases.
        out: Folder of the new store.
        cell: Side of a cube in voxels.
        num_words: Words of each stage.
        num_stages: Stages; each adds a byte for each cube.
        on_progress: Called with the number of finished cases and of all.

    Raises:
        BadInput: A setting is out of range, `out` exists, or there is no case.
    """
    if not (1 < cell <= 16 and 2 <= num_words <= MAX_WORDS and 1 <= num_stages <= 8):
        raise BadInput(
            f"--cell {cell} --words {num_words} --stages {num_stages}: give a cell of 2 to 16 voxels, 2 to {MAX_WORDS}"
            " words and 1 to 8 stages"
        )
    if not manifest.cases:
        raise BadInput(f"{manifest.folder}: its manifest lists no case")
    source, count = Store(manifest), len(manifest.cases)
    with atomic_folder(out) as part:
        codebooks = _fit_codebooks(manifest, source, part, cell, num_words, num_stages)
        cases, ratios, raw_bytes = [], [], 0
        for number, case in enumerate(manifest.cases):
            stored = source.image(case)
            volume, path = stored.volume(), part / "images" / f"{case.id}.b2nd"
            sha = store.write(path, volume, stored.provenance(), codebooks[case.unit])
            ratios.append(measure_psnr(volume.voxels, store.read(path).array[:]))
            raw_bytes += volume.voxels.nbytes
            cases.append(replace(_copy_label(manifest, case, part), image=f"images/{path.name}", sha256=sha))
            on_progress(number + 1, count)
        StoreMetadata.read(manifest.folder).write(part)
        Manifest(tuple(cases), part).write(part / "manifest.csv")
        write_checksums(part, ("store.json", "manifest.csv"))
        after = sum(path.stat().st_size for path in (part / "images").iterdir())
    before = sum(manifest.path(case).stat().st_size for case in manifest.cases)
    return Compression(count, before, after, raw_bytes, float(np.median(ratios)))


def measure_psnr(true: Shaped[np.ndarray, "*n"], decoded: Shaped[np.ndarray, "*n"]) -> float:
    """Returns 20 log10(range / root mean squared error) in dB, with the range between the permilles of `true`."""
    low, high = np.quantile(true.astype(np.float64), [0.001, 0.999])
    error = np.sqrt(np.square(true.astype(np.float64) - decoded).mean())
    return float(20 * np.log10(max(high - low, 1e-12) / max(error, 1e-12)))


def _fit_codebooks(
    manifest: Manifest, source: Store, part: Path, cell: int, num_words: int, num_stages: int
) -> dict[str, Path]:
    """Writes the words for each unit of the voxels, and returns their files."""
    (part / "images").mkdir(parents=True)
    paths = {}
    for unit in sorted({case.unit for case in manifest.cases}):
        cases = [case for case in manifest.cases if case.unit == unit]
        chosen = cases[:: -(-len(cases) * CUBES_OF_CASE // MAX_CUBES)]
        cubes = np.concatenate([_draw_cubes(source, case, cell, seed) for seed, case in enumerate(chosen)])
        paths[unit] = part / "images" / f"{CODEBOOK}-{'hu' if unit == 'HU' else 'au'}.npz"
        Codebook.fit(cubes, num_words, num_stages).write(paths[unit])
    return paths


def _draw_cubes(source: Store, case: Case, cell: int, seed: int) -> Float32[np.ndarray, "m n"]:
    """Returns random cubes of a case, half of them around voxels of the body."""
    stored, draw = source.image(case), np.random.default_rng(seed)
    voxels = stored.array[:].reshape(-1, *stored.shape)
    padded = np.pad(voxels, [(0, 0), *((0, max(0, cell - n)) for n in stored.shape)], mode="edge")
    limits = np.array(padded.shape[1:]) - cell
    corners = draw.integers(0, limits + 1, (CUBES_OF_CASE, 3))
    body = stored.sample_points.get("body", np.zeros((0, 3), int))
    if len(body):
        half = draw.choice(body, CUBES_OF_CASE // 2)
        corners[: len(half)] = np.clip(half - cell // 2, 0, limits)
    channels = draw.integers(0, len(padded), CUBES_OF_CASE)
    cubes = [
        padded[c, i : i + cell, j : j + cell, k : k + cell].ravel()
        for c, (i, j, k) in zip(channels, corners, strict=True)
    ]
    return np.array(cubes, np.float32)


def _copy_label(manifest: Manifest, case: Case, part: Path) -> Case:
    """Copies the label file of a case, if it has one, and returns the case with its new path."""
    if not case.label:
        return case
    copied = part / "labels" / f"{case.id}.b2nd"
    copied.parent.mkdir(exist_ok=True)
    shutil.copyfile(manifest.label_path(case), copied)
    return replace(case, label=f"labels/{copied.name}")

"""The appearance codes of leakage checks: similarity of copies against that of different patients, by bytes a case.

usage: python -m benchmarks.leak_traces [DATA]; DATA holds hippocampus, headneck_ct, nodules and sarcoma (shared/data).
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from medssl.data.checks import appearance, leakage
from medssl.data.normalization import IntensityNormalization
from medssl.data.phantoms.datasets import simulate_chest_ct
from medssl.data.store import make_thumbnail
from medssl.io import nifti
from medssl.volume import Unit, Volume

SETS: dict[str, tuple[str, Unit]] = {
    "hippocampus/imagesTr/*.nii.gz": ("hippocampus MR", "a.u."),
    "headneck_ct/imagesTr/*.nii.gz": ("head and neck CT", "HU"),
    "nodules/images/*.nii.gz": ("chest CT, every third", "HU"),
    "sarcoma/imagesTr/*_0000.nii.gz": ("limb CT", "HU"),
    "sarcoma/imagesTr/*_0001.nii.gz": ("limb MR", "a.u."),
}
NUM_PHANTOMS, NUM_COPIED, NUM_HARDEST = 44, 30, 40
RATES = (1, 2, 3, 4, 6)  # every n-th step of a code
EDITS: dict[str, Callable[[Volume], Volume]] = {
    "0 voxels": lambda volume: volume,
    "1 voxel": lambda volume: crop(volume, 1),
    "2 voxels": lambda volume: crop(volume, 2),
    "noisy": lambda volume: add_noise(volume),
    "resampled": lambda volume: volume.resample([1.3 * s for s in volume.spacing_mm()], order=1),
}


def main(data: str = "../shared/data") -> None:
    """Prints a table by set for whole codes, and one by bytes a case for all sets."""
    different: dict[int, list[float]] = {every: [] for every in RATES}
    cropped: dict[int, list[float]] = {every: [] for every in RATES}
    print(f"Similarity of the pictures; above {appearance.ALIKE} is a copy.\n")
    print(f"| set | scans | two patients, highest | copies, lowest: {' | '.join(EDITS)} |")
    print("|---|---|---|" + "---|" * len(EDITS))
    for name, volumes in read_sets(Path(data)):
        thumbnails = [make_thumbnail(volume) for volume in volumes]
        pairs = rank_pairs(thumbnails)
        chosen = range(0, len(volumes), max(1, len(volumes) // NUM_COPIED))
        copies = {edit: [make_thumbnail(change(volumes[n])) for n in chosen] for edit, change in EDITS.items()}
        for every in RATES:
            codes = [appearance.encode_appearance(thumbnail, every) for thumbnail in thumbnails]
            different[every] += [
                appearance.measure_similarity(thumbnails[i], codes[j]) for _, i, j in pairs[:NUM_HARDEST]
            ]
            rows = {
                edit: [
                    appearance.measure_similarity(picture, codes[n]) for n, picture in zip(chosen, made, strict=True)
                ]
                for edit, made in copies.items()
                if every == 1 or edit == "1 voxel"
            }
            cropped[every] += rows["1 voxel"]
            if every == 1:
                highest = f"{pairs[0][0]:.3f}" if pairs else f"below {appearance.NEAR}"
                lowest = " | ".join(f"{min(row):.3f}" for row in rows.values())
                print(f"| {name} | {len(volumes)} | {highest} | {lowest} |", flush=True)
    print_rates(different, cropped)


def print_rates(different: dict[int, list[float]], cropped: dict[int, list[float]]) -> None:
    """Prints the separation by bytes a case, and what a case takes in a file."""
    print(f"\nOf the {NUM_HARDEST} most similar pairs of each set, and of copies without 1 voxel on each side:\n")
    print("| bytes of a code | two patients, highest | copies, lowest | between them |\n|---|---|---|---|")
    for every in RATES:
        size = -(-(appearance.CODE_BYTES - 1) // every) + 1
        high, low = max(different[every]), min(cropped[every])
        print(f"| {size} | {high:.3f} | {low:.3f} | {low - high:+.3f} |")
    print(f"\nA case takes {measure_file():.0f} bytes of {leakage.TRACES_FILE}, its id of 24 characters included.")


def read_sets(data: Path) -> Iterator[tuple[str, list[Volume]]]:
    """Yields the name and the prepared volumes of each set."""
    normalization = IntensityNormalization()
    for pattern, (name, unit) in SETS.items():
        paths = sorted(data.glob(pattern))[:: 3 if pattern.startswith("nodules") else 1]
        yield name, [normalization.prepare(replace(nifti.read(path), unit=unit), None) for path in paths]
    phantoms = (simulate_chest_ct(seed, (72, 72, 72), (4.0, 4.0, 4.0)).image for seed in range(NUM_PHANTOMS))
    yield "the demo's phantoms", [normalization.prepare(phantom, None) for phantom in phantoms]


def rank_pairs(thumbnails: "list[np.ndarray]") -> list[tuple[float, int, int]]:
    """Returns similarity, scan and code of all pairs that are worth a comparison, the most similar first."""
    codes = np.stack([appearance.encode_appearance(thumbnail) for thumbnail in thumbnails])
    return sorted(
        (
            (appearance.measure_similarity(thumbnail, codes[other]), number, other)
            for number, thumbnail in enumerate(thumbnails)
            for other in appearance.find_near(thumbnail, codes)
            if other != number
        ),
        reverse=True,
    )


def crop(volume: Volume, margin: int) -> Volume:
    """Returns a volume without a margin of voxels on each side."""
    inner = slice(margin, -margin)
    return replace(volume, voxels=volume.voxels[..., inner, inner, inner])


def add_noise(volume: Volume) -> Volume:
    """Returns a volume with noise of a tenth of its standard deviation."""
    voxels = volume.voxels.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1 * voxels.std(), voxels.shape)
    return replace(volume, voxels=(voxels + noise).astype(volume.voxels.dtype))


def measure_file(count: int = 10_000) -> float:
    """Returns the bytes that a case takes in the file of a run."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 243, (count, appearance.CODE_BYTES), np.uint8)
    traces = [
        leakage.CaseTrace(f"site-a_patient-{n:08d}", *(random.bytes(leakage.HASH_BYTES) for _ in range(3)), codes[n])
        for n in range(count)
    ]
    with tempfile.TemporaryDirectory() as name:
        leakage.write_traces(Path(name), traces)
        return (Path(name) / leakage.TRACES_FILE).stat().st_size / count


if __name__ == "__main__":
    main(*sys.argv[1:])

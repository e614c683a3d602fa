"""Leakage checks on real scans: which altered copies are found, and how many pairs of different scans are confused.

usage: python -m benchmarks.leakage [DATA]
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from medssl.data.checks.appearance import ALIKE, find_copies, make_sketch
from medssl.data.checks.case_traces import ROW
from medssl.data.normalization import IntensityNormalization
from medssl.data.store import make_thumbnail
from medssl.io import nifti
from medssl.volume import Volume

DATA = "../shared/data"
SETS = {
    "hippocampus": ("imagesTr/*.nii.gz", 1),
    "headneck_ct": ("imagesTr/*.nii.gz", 1),
    "nodules": ("images/*.nii.gz", 3),  # a third: the rest shares their backgrounds
    "sarcoma": ("images*/*.nii.gz", 1),
}
ALTERED = 12  # scans of each set that are altered


def main(data: str = DATA) -> None:
    """Prints a markdown table."""
    print(f"{ROW.itemsize} bytes a case; two scans with a correlation of {ALIKE} or more count as copies\n")
    names = list(CHANGES)
    print(f"| data | scans | false alarms / pairs | {' | '.join(names)} | CPU s |\n|{'---|' * (len(names) + 4)}")
    for name, (pattern, step) in SETS.items():
        volumes = read_volumes(sorted(Path(data, name).glob(pattern))[::step])
        thumbnails = [make_thumbnail(volume) for volume in volumes]
        sketches = np.stack([make_sketch(thumbnail) for thumbnail in thumbnails])
        start = time.process_time()
        alarms = sum(copy.scan != copy.sketch for copy in find_copies(thumbnails, sketches))
        seconds = time.process_time() - start
        altered = range(0, len(volumes), max(1, len(volumes) // ALTERED))
        cells = []
        for change in CHANGES.values():
            copies = find_copies([make_thumbnail(change(volumes[n])) for n in altered], sketches)
            cells.append(f"{len({c.scan for c in copies if altered[c.scan] == c.sketch})} / {len(altered)}")
        num_pairs = len(volumes) * (len(volumes) - 1)
        print(f"| {name} | {len(volumes)} | {alarms} / {num_pairs} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def read_volumes(paths: list[Path]) -> list[Volume]:
    """Reads and normalizes scans, as an ingestion does."""
    units = ("a.u." if "hippocampus" in str(path) or path.name.endswith("_0001.nii.gz") else "HU" for path in paths)
    scans = (replace(nifti.read(path), unit=unit) for path, unit in zip(paths, units, strict=True))
    return [IntensityNormalization().prepare(scan, None) for scan in scans]


def crop(volume: Volume, low: float, high: float) -> Volume:
    """Crops fractions of each axis, but at least a voxel where a fraction is positive, off the two ends."""
    ends = [[max(1, round(n * fraction)) if fraction else 0 for fraction in (low, high)] for n in volume.shape]
    box = tuple(slice(first, n - last) for (first, last), n in zip(ends, volume.shape, strict=True))
    return replace(volume, voxels=volume.voxels[box])


def resample(volume: Volume) -> Volume:
    """Resamples to cubes 1.4 times as long as the longest side of a voxel."""
    side = 1.4 * max(volume.spacing_mm())
    return volume.resample((side, side, side), order=1)


def add_noise(volume: Volume) -> Volume:
    """Adds normal noise of 3 % of the range of intensities."""
    low, high = np.percentile(volume.voxels, (0.5, 99.5))
    noise = np.random.default_rng(0).normal(0, 0.03 * (high - low), volume.shape)
    return replace(volume, voxels=(volume.voxels + noise).astype(np.float32))


def brighten(volume: Volume) -> Volume:
    """Raises intensities to the power 0.7 of their range."""
    low, high = np.percentile(volume.voxels, (0.5, 99.5))
    scaled = ((volume.voxels.astype(float) - low) / (high - low)).clip(0, 1)
    return replace(volume, voxels=(low + (high - low) * scaled**0.7).astype(np.float32))


CHANGES: dict[str, Callable[[Volume], Volume]] = {
    "2 % off every end": lambda volume: crop(volume, 0.02, 0.02),
    "5 % off every end": lambda volume: crop(volume, 0.05, 0.05),
    "8 % off one end": lambda volume: crop(volume, 0.08, 0),
    "resampled": resample,
    "3 % noise": add_noise,
    "brighter": brighten,
    "3 % off every end, noise, resampled": lambda volume: resample(add_noise(crop(volume, 0.03, 0.03))),
    "mirrored": lambda volume: replace(volume, voxels=volume.voxels[::-1]),
}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Prediction without torch: disk, memory and CPU time of an ONNX file against its run

The network is the default residual U-Net with random weights, in windows of 64 voxels a side. Both programs predict one
CT, from the start of the process to the files of the case, with one thread. The disk is what the packages of an extra
and all that they require take where this script runs.
"""

import argparse
import importlib.metadata
import sys
import tempfile
from collections import deque
from pathlib import Path
from statistics import median

import numpy as np
from packaging.requirements import Requirement
from scipy import ndimage

from benchmarks._commands import Cost, measure
from benchmarks._random_run import write_random_run
from medssl import cli
from medssl.io import nifti
from medssl.nn.encoder import EncoderConfig
from medssl.volume import Volume

SIDE = 64
TITLES = {"run": "run, with torch", "onnx": "ONNX file, with onnxruntime"}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="predictions by each program")
    parser.add_argument("--size", type=int, default=160, help="slices of the CT, and voxels of their sides")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder), args.size)
        costs: dict[str, list[Cost]] = {name: [] for name in paths}
        for number in range(args.rounds):
            for name, path in paths.items():
                words = f"predict {path} {folder}/scans --modality CT --out {folder}/{name}{number}"
                costs[name].append(measure(words))
        agreement = compare(Path(folder), "run0", "onnx0")
    disk = {"run": measure_extra("train"), "onnx": measure_extra("onnx")}
    print("| program | CPU s | wall s | peak MB | disk of the packages, MB |\n|---|---|---|---|---|")
    middle = {
        name: [median(getattr(cost, field) for cost in costs[name]) for field in ("cpu_s", "wall_s", "peak_bytes")]
        for name in costs
    }
    for name, (cpu_s, wall_s, peak_bytes) in middle.items():
        print(f"| {TITLES[name]} | {cpu_s:.1f} | {wall_s:.1f} | {peak_bytes / 2**20:.0f} | {disk[name]:.0f} |")
    ratios = [with_torch / without for with_torch, without in zip(*middle.values(), strict=True)]
    print(f"| ratio | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} | {disk['run'] / disk['onnx']:.2f} |")
    print(f"\n{args.size} slices of {args.size} x {args.size}, medians of {args.rounds} rounds; ", end="")
    print(f"{agreement:.4%} of the labels are equal. The disk with torch is that of a build for CPUs; CUDA adds GBs.")


def prepare(folder: Path, size: int) -> dict[str, Path]:
    """Writes a scan, a run and its ONNX file; returns the models by program."""
    network = {"encoder": EncoderConfig(), "patch_size": (SIDE,) * 3, "spacing_mm": (1.0, 1.0, 1.0)}
    run = write_random_run(folder / "run", network | {"labels": {1: "liver", 2: "spleen"}})
    if cli.run("publish", [str(run), "--out", str(folder / "published"), "--onnx"]):
        sys.exit("the run could not be published")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (size,) * 3).astype(np.float32), 3)
    scan = Volume((noise / noise.std() * 300).astype(np.int16), np.eye(4), "HU")
    nifti.write(scan, folder / "scans" / "scan.nii.gz")
    return {"run": run, "onnx": folder / "published" / "model.onnx"}


def compare(folder: Path, first: str, second: str) -> float:
    """Returns the fraction of voxels that two predictions give the same label."""
    labels = [nifti.read(folder / name / "scan" / "labels.nii.gz", label=True).voxels for name in (first, second)]
    return float((labels[0] == labels[1]).mean())


def measure_extra(extra: str) -> float:
    """Returns the MB of the packages that `medssl[extra]` requires, directly or not, as they are installed here."""
    waiting, sizes = deque([("medssl", extra)]), dict[str, int]()
    while waiting:
        name, extras = waiting.popleft()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on other systems only
        if name != "medssl":
            paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
            sizes[name] = sum(path.stat().st_size for path in paths if path.is_file())
        for text in distribution.requires or ():
            requirement = Requirement(text)
            is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": extras})
            key = requirement.name.lower().replace("_", "-")
            if is_needed and key not in sizes:
                sizes[key] = 0
                waiting.append((key, ",".join(requirement.extras)))
    return sum(sizes.values()) / 2**20


if __name__ == "__main__":
    main()

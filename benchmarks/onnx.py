"""Prediction without torch: disk, memory and CPU time of an ONNX file against its run

The network is the default residual U-Net with random weights, in windows of 64 voxels a side. Both programs predict one
CT, from the start of the process to the files of the case, with one thread. The disk is what the packages of an extra
and all that they require take where this script runs.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from statistics import median

import numpy as np
import torch
from packaging.requirements import Requirement
from scipy import ndimage

from medssl import cli
from medssl.io import nifti
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

SIDE = 64
PREDICT = """
import sys, time
from pathlib import Path
from medssl import cli
code = cli.run("predict", sys.argv[1:])
rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
print(time.process_time(), rows["VmHWM"].split()[0])
sys.exit(code)
"""
TITLES = {"run": "run, with torch", "onnx": "ONNX file, with onnxruntime"}


class BenchmarkSettings(Settings):
    """The settings of a run that publishing reads."""

    run: Path


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="predictions by each program")
    parser.add_argument("--size", type=int, default=160, help="slices of the CT, and voxels of their sides")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder), args.size)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
        for number in range(args.rounds):
            for name, path in paths.items():
                rows[name].append(run(path, Path(folder), f"{name}{number}"))
        agreement = compare(Path(folder), "run0", "onnx0")
    disk = {"run": measure_extra("train"), "onnx": measure_extra("onnx")}
    print("| program | CPU s | wall s | peak MB | disk of the packages, MB |\n|---|---|---|---|---|")
    middle = {n: {key: median(row[key] for row in rows[n]) for key in ("cpu", "wall", "peak")} for n in rows}
    for name, values in middle.items():
        print(
            f"| {TITLES[name]} | {values['cpu']:.1f} | {values['wall']:.1f} | {values['peak']:.0f} | {disk[name]:.0f} |"
        )
    ratios = [middle["run"][key] / middle["onnx"][key] for key in ("cpu", "wall", "peak")]
    print(f"| ratio | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} | {disk['run'] / disk['onnx']:.2f} |")
    print(f"\n{args.size} slices of {args.size} x {args.size}, medians of {args.rounds} rounds; ", end="")
    print(f"{agreement:.4%} of the labels are equal. The disk with torch is that of a build for CPUs; CUDA adds GBs.")


def prepare(folder: Path, size: int) -> dict[str, Path]:
    """Writes a scan, a run and its ONNX file; returns the models by program."""
    network = TrainedModel.model_validate(
        {
            "encoder": EncoderConfig(), "in_channels": 1, "normalization": {}, "patch_size": (SIDE,) * 3,
            "spacing_mm": (1.0, 1.0, 1.0), "labels": {1: "liver", 2: "spleen"}, "task": {"name": "segment"},
        }
    )  # fmt: skip
    torch.manual_seed(0)
    settings = BenchmarkSettings(run=folder / "run")
    run = Run.create(folder / "run", settings, "finetune", network=network.model_dump(mode="json"))
    weight_transfer.save_parts(network.build_task().transferable(), run.path / "weights.safetensors")
    run.close()
    if cli.run("publish", [str(run.path), "--out", str(folder / "published"), "--onnx"]):
        sys.exit("the run could not be published")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (size,) * 3).astype(np.float32), 3)
    scan = Volume((noise / noise.std() * 300).astype(np.int16), np.eye(4), "HU")
    nifti.write(scan, folder / "scans" / "scan.nii.gz")
    return {"run": run.path, "onnx": folder / "published" / "model.onnx"}


def run(model: Path, folder: Path, name: str) -> dict[str, float]:
    """Predicts the scan in a process of its own and returns what it took."""
    words = [str(model), str(folder / "scans"), "--modality", "CT", "--out", str(folder / name)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PREDICT, *words]
    start = time.monotonic()
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"medssl predict {' '.join(words)}: {process.stderr.strip().splitlines()[-1]}")
    wall_s = time.monotonic() - start
    cpu_s, peak_kb = map(float, process.stdout.split()[-2:])
    return {"cpu": cpu_s, "wall": wall_s, "peak": peak_kb / 1024}


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

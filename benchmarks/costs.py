"""Hours, memory and disk of 100 and 1,000 CTs on two cores and on one GPU, by the model of `medssl plan`.

usage: python -m benchmarks.costs [TFLOPS]; TFLOPS is what a GPU reaches in a training, 20 unless given.
"""

import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from benchmarks._commands import measure, run
from benchmarks._random_run import write_random_run
from medssl.data.manifest import Case, Manifest
from medssl.data.phantoms.datasets import simulate_chest_ct
from medssl.inference.phantom_predictions import write_phantom_predictions
from medssl.io import nifti
from medssl.planning.choose_settings import Budget, plan_training
from medssl.planning.dataset_fingerprint import ClassSize, DatasetFingerprint, format_triple
from medssl.planning.network_cost import BACKWARD, SPEED_SIDE, SPEED_WIDTH
from medssl.planning.training_plan import ConfigPlan, Purpose

COUNTS, LABELLED = (100, 1000), 20
SHAPE, SPACING_MM = (300, 300, 240), (1.25, 1.25, 1.25)  # a chest CT in the store
SCAN_SHAPE = (512, 512, 240)  # as the scanner wrote it
HOURS = 24.0  # that a training may take
RUN_BYTES = 2 * 12 + 4  # per parameter: two checkpoints of weights and both moments, and the final weights
TRIAL_SHAPE, TRIAL_SPACING_MM = (256, 256, 120), (1.25, 1.25, 2.5)  # of the scan that ingestion is timed on
PART = (256, 256, 112)  # voxels of the scan whose prediction is measured
REPEATS = 9
OVERLAP = 0.5  # of two windows of a prediction


@dataclass(frozen=True)
class Machine:
    """What the planner asks of a machine.

    Attributes:
        name: Name in the table.
        cores: Cores that ingest.
        flops_per_s: Floating-point operations per second of a training.
        memory_gb: Memory that a training may use.
    """

    name: str
    cores: int
    flops_per_s: float
    memory_gb: float

    @property
    def budget(self) -> Budget:
        """What the planner may use of it."""
        return Budget(HOURS, self.memory_gb, self.flops_per_s)


@dataclass(frozen=True)
class Measured:
    """What was measured on this machine.

    Attributes:
        ingest_s: CPU seconds of ingestion for a voxel of a scan.
        store_bytes: Bytes of the store for a voxel of it.
        prediction_bytes: Bytes of predictions for a voxel of a scan.
        ingest_peak: Peak memory of a process of ingestion, in bytes.
        predict_peak: Peak memory of a prediction, in bytes.
    """

    ingest_s: float
    store_bytes: float
    prediction_bytes: float
    ingest_peak: int
    predict_peak: int


def main(tflops: str = "20") -> None:
    """Measures one core and one scan, and prints a table for each number of scans."""
    core = measure_core()
    machines = (
        Machine("2 cores", 2, 2 * core, 12.0),
        Machine(f"8 cores and a GPU, its {tflops} TFLOP/s assumed", 8, float(tflops) * 1e12, 24.0),
    )
    ingest_s, store_bytes = measure_ingestion()
    measured = Measured(ingest_s, store_bytes, measure_predictions(), *measure_memory(machines[0]))
    print(
        f"A CT of {format_triple(SCAN_SHAPE)} voxels becomes {format_triple(SHAPE)} at {SPACING_MM[0]} mm;"
        f" {LABELLED} are labelled, and {HOURS:g} h are given to each training. Measured here: {core / 1e9:.0f} GFLOP/s"
        f" of a core in a training, {ingest_s * 1e6:.2f} CPU seconds of ingestion, {store_bytes:.2f} MB of store and"
        f" {measured.prediction_bytes:.2f} MB of predictions a million voxels; the memory of ingestion, on a simulated"
        f" CT of this size, and of prediction, on {format_triple(PART)} voxels of it with the network of the first"
        f" rows: the windows need it, not the scan. Assumed and not measured: {tflops} TFLOP/s of a GPU.\n"
    )
    print("| CTs | machine | stage | hours | memory, GB | disk, GB | what |\n|---|---|---|---|---|---|---|")
    for count in COUNTS:
        for machine in machines:
            print_rows(count, machine, measured)


def print_rows(count: int, machine: Machine, measured: Measured) -> None:
    """Prints a row for each stage."""
    voxels, scan_voxels = math.prod(SHAPE), math.prod(SCAN_SHAPE)
    hours = count * scan_voxels * measured.ingest_s / machine.cores / 3600
    memory = f"{machine.cores * measured.ingest_peak / 1e9:.1f}"
    rows = [("ingest", hours, memory, count * voxels * measured.store_bytes / 1e9, "a process a core")]
    fingerprint = make_fingerprint(count)
    purposes: tuple[Purpose, ...] = ("pretrain", "finetune")
    for purpose in purposes:
        plan = plan_training(fingerprint, purpose, machine.budget)
        hours = plan.steps * plan.cost.step_seconds(plan.batch_size, machine.flops_per_s) / 3600
        memory = f"{plan.cost.memory_gb(plan.batch_size):.1f}"
        rows.append((purpose, hours, memory, RUN_BYTES * plan.cost.parameters / 1e9, describe(plan)))
    windows = count_windows(plan.settings()["patch_size"])
    hours = count * windows * plan.cost.flops / machine.flops_per_s / 3600
    memory = f"{measured.predict_peak / 1e9:.1f}" if machine.cores == 2 else "not measured"
    disk = count * scan_voxels * measured.prediction_bytes / 1e9
    rows.append(("predict", hours, memory, disk, f"{windows} windows a CT"))
    for stage, hours, memory, disk, what in rows:
        print(f"| {count:,} | {machine.name} | {stage} | {hours:.2g} | {memory} | {disk:.1f} | {what} |")
    total_hours, total_disk = sum(row[1] for row in rows), sum(row[3] for row in rows)
    print(f"| {count:,} | {machine.name} | all | {total_hours:.2g} | | {total_disk:.1f} | |")


def measure_core() -> float:
    """Returns the floating-point operations per second of one core in a convolution, by processor time."""
    torch.set_num_threads(1)
    layer = nn.Conv3d(SPEED_WIDTH, SPEED_WIDTH, 3, padding=1)
    layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = torch.ones(1, SPEED_WIDTH, SPEED_SIDE, SPEED_SIDE, SPEED_SIDE, requires_grad=True)
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        layer(x).sum().backward()
        seconds.append(time.process_time() - began)
    return (1 + BACKWARD) * 2 * 27 * SPEED_WIDTH**2 * SPEED_SIDE**3 / statistics.median(seconds)


def measure_ingestion() -> tuple[float, float]:
    """Returns CPU seconds and bytes in the store for one voxel of a scan, from ingesting one scan and three."""
    scan = simulate_chest_ct(0, TRIAL_SHAPE, TRIAL_SPACING_MM).image
    seconds, sizes = [], []
    with tempfile.TemporaryDirectory() as name:
        for count in (1, 3):
            folder = Path(name, str(count))
            for number in range(count):
                nifti.write(replace(scan, voxels=scan.voxels + number), folder / "scans" / f"c{number}.nii.gz")
            began = _child_seconds()
            run(f"ingest {folder}/scans --out {folder}/store --modality CT --workers 0")
            seconds.append(_child_seconds() - began)
            sizes.append(_size(folder / "store" / "images"))
    voxels = 2 * math.prod(TRIAL_SHAPE)
    return (seconds[1] - seconds[0]) / voxels, (sizes[1] - sizes[0]) / voxels


def measure_predictions() -> float:
    """Returns the bytes of predictions for one voxel of a scan."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "predictions")
        write_phantom_predictions(folder, 1)
        image = nifti.read(next(folder.rglob("image.nii.gz")))
        return _size(folder) / image.voxels.size


def measure_memory(machine: Machine) -> tuple[int, int]:
    """Returns the peak memory of an ingestion and of a prediction, in bytes, with the network planned for a machine."""
    settings = plan_training(make_fingerprint(COUNTS[0]), "finetune", machine.budget).settings()
    network = {key: settings[key] for key in ("encoder", "patch_size")} | {"spacing_mm": SPACING_MM}
    scan = simulate_chest_ct(0, TRIAL_SHAPE, TRIAL_SPACING_MM).image
    zoom = [size / trial for size, trial in zip(SCAN_SHAPE, TRIAL_SHAPE, strict=True)]
    voxels = ndimage.zoom(scan.voxels, zoom, order=0)
    affine = scan.affine @ np.diag([*(1 / z for z in zoom), 1.0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_run(folder / "run", network | {"labels": {1: "organ"}})
        nifti.write(replace(scan, voxels=voxels, affine=affine), folder / "scans" / "ct.nii.gz")
        spacing = ",".join(map(str, SPACING_MM))
        words = f"ingest {folder}/scans --out {folder}/store --modality CT --workers 0 --spacing {spacing}"
        ingestion = measure(words)
        nifti.write(replace(scan, voxels=voxels[tuple(map(slice, PART))], affine=affine), folder / "part" / "ct.nii.gz")
        prediction = measure(f"predict {folder}/run {folder}/part --modality CT --out {folder}/predictions")
    return ingestion.peak_bytes, prediction.peak_bytes


def make_fingerprint(count: int) -> DatasetFingerprint:
    """Returns the fingerprint of a store of CTs of one size, without any file."""
    cases = tuple(
        Case(
            id=str(n), patient=str(n), image="", label="label" if n < LABELLED else None, modality="CT", unit="HU",
            spacing_mm=SPACING_MM, shape=SHAPE, channels=1, split="train", source="", sha256="",
        )
        for n in range(count)
    )  # fmt: skip
    return DatasetFingerprint(
        Manifest(cases, Path()), SPACING_MM, True, (SPACING_MM,), (SHAPE,), {"CT": (-900.0, 0.0, 900.0)}, 0.5,
        (ClassSize("organ", "organ", LABELLED, 1000.0, 100.0),), False,
    )  # fmt: skip


def describe(plan: ConfigPlan) -> str:
    """Returns the network of a plan as text."""
    settings = plan.settings()
    channels = " ".join(map(str, settings["encoder"]["channels"]))
    patch = format_triple(settings["patch_size"])
    return f"{plan.steps:,} steps of {plan.batch_size} crops of {patch}, channels {channels}"


def count_windows(patch_size: Sequence[int]) -> int:
    """Returns the number of windows of a sliding window over a scan of the store."""
    return math.prod(
        1 + math.ceil(max(0, n - side) / (side * (1 - OVERLAP))) for n, side in zip(SHAPE, patch_size, strict=True)
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])

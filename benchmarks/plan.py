"""Plans of `medssl plan` against those of nnU-Net's planner, and the reason where they differ.

usage: python -m benchmarks.plan [DATA]; nnU-Net is installed into a throw-away environment.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._commands import run
from medssl.data.manifest import Manifest
from medssl.files import write_json
from medssl.io import nifti
from medssl.nn.encoder import EncoderConfig
from medssl.planning.choose_settings import MIN_BATCH, Budget, plan_training
from medssl.planning.dataset_fingerprint import DatasetFingerprint, format_triple
from medssl.planning.network_cost import PROCESS_GB, estimate_cost
from medssl.planning.training_plan import ConfigPlan

DATA = "../shared/data"
SETS = ("hippocampus", "headneck_ct", "sarcoma", "nodules")
NNUNET = "nnunetv2==2.8.1"
MEMORY_GB = 8.0  # the GPU that nnU-Net plans for unless it is told otherwise
GPU, TWO_CORES = 20e12, 100e9  # floating-point operations per second of a training, for plans by estimates
GPU_HOURS, CPU_HOURS, CPU_MEMORY_GB = 48.0, 2.0, 6.0


@dataclass(frozen=True)
class PlannedNetwork:
    """A plan in the axis order of the store."""

    spacing: Sequence[float]
    patch: Sequence[int]
    strides: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]]
    channels: Sequence[int]
    batch: int

    def describe(self) -> dict[str, str]:
        """Returns each setting as text."""
        levels = {"strides": self.strides, "kernels": self.kernels}
        return {
            "spacing": format_triple([round(value, 2) for value in self.spacing]),
            "patch": format_triple(self.patch),
            **{name: " ".join("x".join(map(str, level)) for level in values) for name, values in levels.items()},
            "channels": " ".join(map(str, self.channels)),
            "batch": str(self.batch),
        }


def main(data: str = DATA) -> None:
    """Prints a table for each data set."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = install_nnunet(folder / "environment")
        for number, dataset in enumerate(SETS, 1):
            theirs = plan_with_nnunet(Path(data) / dataset, number, folder, python)
            store = folder / "stores" / dataset
            run(f"ingest {Path(data) / dataset} --out {store}{' --modality MR' if dataset == 'hippocampus' else ''}")
            print_table(dataset, theirs, DatasetFingerprint.measure(Manifest.read(store / "manifest.csv")))
    print(
        f"\nBoth plan for {MEMORY_GB:g} GB. nnU-Net counts on mixed precision; medssl counts on float32, in which CPUs"
        f" compute, and on {PROCESS_GB:g} GB for the process."
    )


def install_nnunet(folder: Path) -> Path:
    """Returns the interpreter of an environment with nnU-Net, in which the packages of this one are found too."""
    venv.create(folder, with_pip=False)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    python = folder / "bin" / "python"
    pins = [f"{package}=={importlib.metadata.version(package)}" for package in ("torch", "numpy")]
    command = [str(python), "-m", "pip", "install", "--quiet", NNUNET, *pins]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{NNUNET}: {process.stderr.strip().splitlines()[-1]}")
    return python


def plan_with_nnunet(data: Path, number: int, folder: Path, python: Path) -> PlannedNetwork:
    """Returns what nnU-Net plans for its largest 3D network on a data set, from its own fingerprint."""
    name = f"Dataset{number:03d}_{data.name}"
    write_raw_dataset(data, folder / "nnUNet_raw" / name)
    keys = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environment = os.environ | {key: str(folder / key) for key in keys}
    for entry, options in (("extract_fingerprint", ["-np", "2"]), ("plan_experiment", [])):
        code = f"from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as e; e.{entry}_entry()"
        command = [str(python), "-c", code, "-d", str(number), *options]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            sys.exit(f"nnU-Net, {data.name}: {process.stderr.strip().splitlines()[-1]}")
    return read_plan(json.loads((folder / "nnUNet_preprocessed" / name / "nnUNetPlans.json").read_text()))


def write_raw_dataset(data: Path, out: Path) -> None:
    """Writes the labelled cases of a data set as nnU-Net wants them; instances of a lesion become one class."""
    contents = json.loads((data / "dataset.json").read_text())
    is_lesion_set = "mask" in contents["training"][0]
    for item in contents["training"]:
        images = item["image"] if isinstance(item["image"], list) else [item["image"]]
        label = nifti.read(data / item.get("label" if not is_lesion_set else "mask"), label=True)
        case = Path(item.get("mask") or item["label"]).name.partition(".")[0]
        for channel, image in enumerate(images):
            target = out / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((data / image).resolve())
        classes = label.voxels > 0 if is_lesion_set else label.voxels
        nifti.write(replace(label, voxels=classes.astype(np.uint8)), out / "labelsTr" / f"{case}.nii.gz")
    labels = {"0": "background", "1": "nodule"} if is_lesion_set else contents["labels"]
    write_json(
        out / "dataset.json",
        {
            "channel_names": contents["modality"],
            "labels": {label: int(value) for value, label in labels.items()},
            "numTraining": len(contents["training"]),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "NibabelIOWithReorient",
        },
    )


def read_plan(plans: dict[str, Any]) -> PlannedNetwork:
    """Returns the network of nnU-Net's 3d_fullres plan with the axes of the store."""
    settings = plans["configurations"]["3d_fullres"]
    network = settings["architecture"]["arch_kwargs"]
    # nnU-Net reads volumes as k, j, i, and then transposes them.
    order = [plans["transpose_forward"].index(2 - axis) for axis in range(3)]

    def reorder(values: Sequence[Any]) -> list[Any]:
        return [values[axis] for axis in order]

    return PlannedNetwork(
        spacing=reorder(settings["spacing"]),
        patch=reorder(settings["patch_size"]),
        strides=[reorder(stride) for stride in network["strides"]],
        kernels=[reorder(kernel) for kernel in network["kernel_sizes"]],
        channels=network["features_per_stage"],
        batch=settings["batch_size"],
    )


def describe_plan(plan: ConfigPlan, fingerprint: DatasetFingerprint) -> PlannedNetwork:
    """Returns the network of a plan."""
    settings = plan.settings()
    encoder, patch = settings["encoder"], settings["patch_size"]
    return PlannedNetwork(
        fingerprint.spacing_mm, patch, encoder["strides"], encoder["kernels"], encoder["channels"], plan.batch_size
    )


def print_table(dataset: str, theirs: PlannedNetwork, fingerprint: DatasetFingerprint) -> None:
    """Prints the plans of both, with the reason where they differ on the same memory."""
    budgets = (Budget(GPU_HOURS, MEMORY_GB, GPU), Budget(CPU_HOURS, CPU_MEMORY_GB, TWO_CORES))
    same, small = (plan_training(fingerprint, "finetune", budget) for budget in budgets)
    ours = describe_plan(same, fingerprint)
    reasons = find_reasons(theirs, ours, same, fingerprint)
    print(f"\n**{dataset}**: median scan of {format_triple(fingerprint.median_shape)} voxels\n")
    print(f"| setting | nnU-Net, {MEMORY_GB:g} GB | medssl, {MEMORY_GB:g} GB | reason where different | ", end="")
    print(f"medssl, 2 cores, {CPU_HOURS:g} h |\n|---|---|---|---|---|")
    cells = [plan.describe() for plan in (theirs, ours, describe_plan(small, fingerprint))]
    for row in cells[0]:
        first, second, third = (cell[row] for cell in cells)
        print(f"| {row} | {first} | {second} | {'' if first == second else reasons[row]} | {third} |")


def find_reasons(
    theirs: PlannedNetwork, ours: PlannedNetwork, plan: ConfigPlan, fingerprint: DatasetFingerprint
) -> dict[str, str]:
    """Returns why each setting may differ."""
    encoder = EncoderConfig(channels=tuple(theirs.channels), strides=theirs.strides, kernels=theirs.kernels)
    in_channels = fingerprint.train.cases[0].channels
    (i, j, k), (least, largest) = theirs.patch, (MIN_BATCH, theirs.batch)
    cost = estimate_cost(encoder, in_channels, (i, j, k))
    memory = (
        f"nnU-Net's network and patch are estimated at {cost.memory_gb(least):.1f} GB with a batch of {least} and"
        f" {cost.memory_gb(largest):.1f} GB with {largest}"
    )
    batch = next(choice.reason for choice in plan.choices if choice.key == "train.batch_size")
    depth = "follows from the patch"
    return {
        "spacing": " ".join(plan.store_warnings) or "rounded",
        "patch": memory,
        "strides": depth,
        "kernels": depth,
        "channels": depth if list(ours.patch) != list(theirs.patch) else memory,
        "batch": batch if "%" not in batch else f"{batch} of split train, while nnU-Net counts all labelled scans",
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

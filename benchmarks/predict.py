"""CPU time and memory of a prediction, from file to files: medssl, MONAI's inferer and inverse transforms, and nnU-Net.

All programs get the same file, network and working grid, each in a process of its own with one thread. MEDSSL_BEFORE
or `--before` names a folder with an earlier version (`git archive COMMIT medssl | tar -x -C FOLDER`), measured too.
The package nnunetv2 is installed into a temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from benchmarks import _predict_programs as programs
from benchmarks._memory import read_peak_mb

SCENES = ("512x512x100 3", "256x256x64 30", "256x256x64 100", "512x512x400 3")
DEPTHS = (200, 400, 600, 800)
DETECTOR_DEPTHS = (200, 400, 800)
CLASSES = (3, 40)
CHEST = Path("../shared/data/dicom/chest_ct_4DLung-P113/CT")
PROGRAMS = {
    "medssl": (programs.predict, "medssl"),
    "before": (programs.predict_with_earlier_version, "medssl before"),
    "monai": (programs.predict_with_monai, "MONAI"),
    "nnunet": (programs.predict_as_nnunet, "nnU-Net way"),
    "nnunetv2": (programs.predict_with_nnunet, "nnunetv2's export"),
}
DETECTORS = {
    "detector": (programs.detect, "one network"),
    "mirrored": (programs.detect_in_mirrored_views, "two mirrored views"),
}
STAGES = ("read", "prepare", "tiles", "findings", "export", "all")
NNUNET = (
    "nnunetv2==2.8.1", "batchgenerators", "batchgeneratorsv2", "acvl_utils", "dynamic_network_architectures",
    "scikit-image", "scikit-learn", "imageio", "lazy_loader", "tifffile", "networkx", "seaborn", "graphviz", "yacs",
    "joblib", "threadpoolctl", "fft-conv-pytorch", "connected-components-3d", "imagecodecs",
)  # fmt: skip


def main() -> None:
    """Prints the table of all programs, and that of the memory over the depth of the volume."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, default=os.environ.get("MEDSSL_BEFORE"))
    parser.add_argument("--one", nargs=3, help="a program, a file and a number of classes; prints figures as JSON")
    parser.add_argument("--scenes", nargs="*", default=SCENES)
    parser.add_argument("--depths", nargs="*", type=int, default=DEPTHS)
    parser.add_argument("--detector-depths", nargs="*", type=int, default=DETECTOR_DEPTHS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), int(args.one[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = {"before": args.before, "nnunetv2": install_nnunet(Path(folder) / "nnunetv2") if args.scenes else None}
        print_programs(args.scenes, paths, Path(folder))
        print_depths(args.depths, Path(folder))
        print_detectors(args.detector_depths, Path(folder))


def print_programs(scenes: list[str], paths: dict[str, Path | None], folder: Path) -> None:
    """Prints the figures of all programs.

    Args:
        scenes: The size and the number of classes of each.
        paths: Where the packages of a program lie; programs without are left out.
        folder: A folder for the scans.
    """
    if not scenes:
        return
    print("CPU s, one thread; export is back to the grid of the scan, argmax and files. Ratios are to medssl's.\n")
    titles = ("scene, classes", "program", *STAGES, "peak MB", "export ratio", "all ratio")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    chosen = [name for name in PROGRAMS if paths.get(name, folder)]
    for scene in scenes:
        size, num_classes = scene.split()
        path = write_scan(folder, tuple(map(int, size.split("x"))))
        rows = {program: run(program, path, num_classes, paths.get(program)) for program in chosen}
        for program, row in rows.items():
            ratios = [f"{row[name] / rows['medssl'][name]:.2f}" for name in ("export", "all")]
            cells = [f"{row[name]:.1f}" for name in STAGES]
            cells = [scene, PROGRAMS[program][1], *cells, f"{row['peak']:.0f}", *ratios]
            print(f"| {' | '.join(cells)} |", flush=True)


def print_depths(depths: list[int], folder: Path) -> None:
    """Prints the peak of the memory over the number of slices, and that of a real CT."""
    if not depths:
        return
    first: dict[str, float] = {}
    print("\n| medssl: scan | classes | peak MB | to the first | CPU s |\n|---|---|---|---|---|")
    paths = {f"512x512x{depth}": (write_scan, (512, 512, depth)) for depth in depths}
    if CHEST.exists():
        paths["chest CT, resampled to 512x512x600"] = (write_chest, (512, 512, 600))
    for name, (write, shape) in paths.items():
        path = write(folder, shape)
        for num_classes in map(str, CLASSES):
            row = run("medssl", path, num_classes, None)
            ratio = row["peak"] / first.setdefault(num_classes, row["peak"])
            print(f"| {name} | {num_classes} | {row['peak']:.0f} | {ratio:.2f} | {row['all']:.1f} |", flush=True)
        path.unlink()


def print_detectors(depths: list[int], folder: Path) -> None:
    """Prints the peak of the memory of detectors over the number of slices; the lesions are as many in all scans."""
    if not depths:
        return
    first: dict[str, float] = {}
    print("\n| medssl, detector | scan | peak MB | to the first | CPU s |\n|---|---|---|---|---|")
    for depth in depths:
        path = write_lesions(folder, (512, 512, depth))
        for program, (_, name) in DETECTORS.items():
            row = run(program, path, "2", None)
            ratio = row["peak"] / first.setdefault(program, row["peak"])
            print(f"| {name} | 512x512x{depth} | {row['peak']:.0f} | {ratio:.2f} | {row['all']:.1f} |", flush=True)
        path.unlink()


def install_nnunet(folder: Path) -> Path | None:
    """Installs nnunetv2 without its torch; returns None, and prints the reason, where it cannot be had."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *NNUNET]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        print(f"nnunetv2 is left out: {process.stderr.strip().splitlines()[-1]}\n")
        return None
    return folder


def run(program: str, path: Path, num_classes: str, packages: Path | None) -> dict[str, float]:
    """Measures a program in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([*([str(packages)] if packages else []), root])
    command = [sys.executable, "-m", "benchmarks.predict", "--one", program, str(path), num_classes]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=path.parent)
    if process.returncode:
        sys.exit(f"{program}, {path.parent.name}: {process.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(program: str, path: Path, num_classes: int) -> dict[str, float]:
    """Returns CPU seconds by stage, and the peak of the memory in MB."""
    torch.set_num_threads(1)
    apply, _ = (PROGRAMS | DETECTORS)[program]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small" / "scan.nii.gz"
        small.parent.mkdir()
        voxels = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
        programs.nibabel.save(programs.nibabel.Nifti1Image(voxels, np.eye(4)), small)
        for n, scan in enumerate((small, path)):  # the first one pays for the imports
            clock, out = programs.Clock(), Path(folder) / str(n)
            out.mkdir()
            network = clock.wrap("tiles", programs.make_network(num_classes))
            with clock.count("all"):
                apply(scan, network, num_classes, out, clock)
    seconds = {stage: clock.seconds[stage] for stage in STAGES}
    seconds["export"] = 2 * seconds["all"] - sum(seconds.values())
    return seconds | {"peak": read_peak_mb()}


def write_scan(folder: Path, shape: tuple[int, ...]) -> Path:
    """Writes a CT of the chest, 350 mm wide, with smooth structures and noise; slices of 1 mm."""
    random = np.random.default_rng(0)
    voxels = np.empty(shape[::-1], np.int16)
    coarse = random.normal(0, 500, (shape[2] // 40 + 3, 10, 10)).astype(np.float32)
    for k in range(shape[2]):
        z = k / 40
        plane = coarse[int(z)] * (1 - z % 1) + coarse[int(z) + 1] * (z % 1)
        smooth = ndimage.zoom(plane, (shape[1] / 10, shape[0] / 10), order=1)
        voxels[k] = smooth + random.normal(0, 20, smooth.shape)
    return save(folder, voxels.T, np.diag([350 / shape[0], 350 / shape[1], 1.0, 1.0]))


def write_lesions(folder: Path, shape: tuple[int, ...]) -> Path:
    """Writes a CT, 350 mm wide with slices of 1 mm, in which only eight balls of 12 mm are bright, with noise."""
    random = np.random.default_rng(0)
    voxels = np.stack([random.normal(-800, 20, shape[1::-1]).astype(np.int16) for _ in range(shape[2])])
    spacing_mm = np.array([1.0, 350 / shape[1], 350 / shape[0]])
    radius = np.ceil(6 / spacing_mm).astype(int)
    for n in range(8):
        centre = [length // 4 * (1 + 2 * (n >> axis & 1)) for axis, length in enumerate(voxels.shape)]
        box = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, radius, strict=True))
        offsets = np.indices(voxels[box].shape) - radius.reshape(3, 1, 1, 1)
        voxels[box][((offsets * spacing_mm.reshape(3, 1, 1, 1)) ** 2).sum(0) <= 36] = 900
    return save(folder, voxels.T, np.diag([350 / shape[0], 350 / shape[1], 1.0, 1.0]))


def write_chest(folder: Path, shape: tuple[int, ...]) -> Path:
    """Writes a real CT of the chest, resampled to a shape."""
    (series,) = import_module("medssl.io.dicom.reader").read(CHEST)
    scan = series.volume()
    i, j, k = (mm * n / m for mm, n, m in zip(scan.spacing_mm(), scan.shape, shape, strict=True))
    resampled = scan.resample((i, j, k), order=1)
    return save(folder, resampled.voxels, resampled.affine)


def save(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """Writes a NIfTI file into a folder of its own."""
    path = folder / "x".join(map(str, voxels.shape)) / "scan.nii.gz"
    path.parent.mkdir(exist_ok=True)
    image = programs.nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    programs.nibabel.save(image, path)
    return path


if __name__ == "__main__":
    main()

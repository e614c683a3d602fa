"""CPU time and memory of a prediction: medssl, MONAI's inferer and inverse transforms, and the way of nnU-Net.

All programs get the same volume, network and working grid, each in a process of its own with one thread. MEDSSL_BEFORE
or `--before` names a folder with an earlier version (`git archive COMMIT medssl | tar -x -C FOLDER`), measured too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from medssl.inference import connected_findings
from medssl.inference import predictor as module
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.sliding_window import sliding_window_inference
from medssl.volume import Volume

SCENES = ("512x512x100 3", "256x256x64 30", "256x256x64 100")
DEPTHS = ("512x512x200 3", "512x512x800 3")
PROGRAMS = ("medssl", "monai", "nnunet")
TITLES = {"medssl": "medssl", "before": "medssl before", "monai": "MONAI", "nnunet": "nnU-Net way"}
WORKING_MM, CROP, STRUCTURE = 3.0, (48, 48, 48), 8


def main() -> None:
    """Prints the table of all programs, and that of the memory over the depth of the volume."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, default=os.environ.get("MEDSSL_BEFORE"))
    parser.add_argument("--one", nargs=2, help="a program and a scene; prints its figures as JSON")
    parser.add_argument("--scenes", nargs="*", default=SCENES)
    parser.add_argument("--depths", nargs="*", default=DEPTHS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    programs = (*(["before"] if args.before else []), *PROGRAMS)
    print("CPU s, one thread; export is back to the grid of the scan, argmax and files. Ratios are to medssl's.\n")
    titles = ("scene, classes", "program", "tiles", "findings", "export", "all", "peak MB", "export ratio", "all ratio")
    print(f"| {' | '.join(titles)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scene in args.scenes:
        rows = {program: run(program, scene, args.before) for program in programs}
        for program, row in rows.items():
            ratios = [row[name] / rows["medssl"][name] for name in ("export", "all")]
            cells = [f"{row[name]:.1f}" for name in ("tiles", "findings", "export", "all")]
            print(f"| {scene} | {TITLES[program]} | {' | '.join(cells)} | {row['peak']:.0f} ", end="")
            print(f"| {ratios[0]:.1f} | {ratios[1]:.2f} |", flush=True)
    print("\n| scene, classes | peak MB | of these the scan | peak without the scan |\n|---|---|---|---|")
    for scene in args.depths:
        row = run("medssl", scene, None)
        print(f"| {scene} | {row['peak']:.0f} | {row['scan']:.0f} | {row['peak'] - row['scan']:.0f} |", flush=True)


def run(program: str, scene: str, before: Path | None) -> dict[str, float]:
    """Measures a program in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if program == "before":
        environment |= {"PYTHONPATH": str(before)}
    command = [sys.executable, __file__, "--one", program, scene]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{program}, {scene}: {process.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(program: str, scene: str) -> dict[str, float]:
    """Returns CPU seconds by stage, and the peak of the memory in MB."""
    torch.set_num_threads(1)
    size, num_classes = scene.split()
    apply = {"monai": predict_as_monai, "nnunet": predict_as_nnunet}.get(program, predict)
    for shape in ((32, 32, 32), tuple(map(int, size.split("x")))):  # the first one pays for the imports
        clock, scan = Clock(), make_scan(shape)
        network = clock.wrap("tiles", make_network(int(num_classes)))
        with tempfile.TemporaryDirectory() as folder, clock.count("all"):
            apply(scan, network, int(num_classes), Path(folder), clock)
    seconds = clock.seconds
    export = seconds["all"] - seconds["tiles"] - seconds["findings"] - seconds["prepare"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    names = ("all", "tiles", "findings", "prepare")
    return {name: seconds[name] for name in names} | {
        "export": export,
        "peak": peak,
        "scan": scan.voxels.nbytes / 2**20,
    }


class Clock:
    """Adds up CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds = Counter[str]()

    @contextmanager
    def count(self, stage: str) -> Iterator[None]:
        """Adds the CPU time of a block to a stage."""
        start = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - start

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that adds its CPU time to a stage."""

        def call(*args: Any, **options: Any) -> Any:
            with self.count(stage):
                return function(*args, **options)

        return call


def make_scan(shape: tuple[int, ...]) -> Any:
    """A CT of the chest, 350 mm wide, with smooth structures and noise; slices of 1 mm."""
    random = np.random.default_rng(0)
    voxels = np.empty(shape[::-1], np.int16)
    coarse = random.normal(0, 500, (shape[2] // 40 + 3, 10, 10)).astype(np.float32)
    for k in range(shape[2]):
        z = k / 40
        plane = coarse[int(z)] * (1 - z % 1) + coarse[int(z) + 1] * (z % 1)
        smooth = ndimage.zoom(plane, (shape[1] / 10, shape[0] / 10), order=1)
        voxels[k] = smooth + random.normal(0, 20, smooth.shape)
    return Volume(voxels.T, np.diag([350 / shape[0], 350 / shape[1], 1.0, 1.0]), "HU")


def make_network(num_classes: int) -> Callable[..., Any]:
    """Convolutions with random weights, of which each class takes its own range: compact structures in a background."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*size, 3, 3, 3, generator=generator) * 0.2 for size in ((16, 1), (16, 16))]
    centres = torch.linspace(-1, 1, num_classes).view(1, -1, 1, 1, 1)

    def network(x: Any) -> Any:
        features = x
        for weight in weights:
            features = functional.conv3d(features, weight, padding=1).relu()
        level = functional.avg_pool3d(x + 0 * features[:, :1], STRUCTURE)
        level = functional.interpolate(level, size=x.shape[2:], mode="trilinear")
        return (-((level * 2 - 1 - centres) ** 2) * 40 * num_classes).softmax(1)

    return network


def prepare(volume: Any) -> Any:
    """Returns the network input at the working spacing."""
    ras = volume.reorient("RAS").resample((WORKING_MM,) * 3, order=1)
    return replace(ras, voxels=np.clip((ras.voxels.astype(np.float32) + 1000) / 2000, 0, 1), unit="a.u.")


def predict(scan: Any, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts and writes a case with medssl, whichever version is on the path."""
    names = {n: f"class {n}" for n in range(1, num_classes)}
    if hasattr(connected_findings, "build_findings"):
        collect, case_stream = (
            import_module(f"medssl.inference.{name}") for name in ("findings.collect", "streaming.case_stream")
        )
        for owner, name in ((collect.ComponentCollector, "add"), (case_stream, "build_findings")):
            setattr(owner, name, clock.wrap("findings", getattr(owner, name)))
    else:
        module.extract_findings = clock.wrap("findings", module.extract_findings)
    prepare_scan = clock.wrap("prepare", prepare)
    predictor = module.Predictor(wrap_network(network), prepare_scan, CROP, names, organs=frozenset(names))
    source = getattr(predictor, "stream", predictor)(scan, "a")
    PredictionWriter.create(folder / "out", names, {"run": "r", "weights_sha256": "0"}).add("a", scan, source)


def wrap_network(function: Any) -> Any:
    """Returns a function of torch as a network of the version on the path."""
    try:
        return import_module("medssl.inference.networks.torch_network").TorchNetwork(function)
    except ModuleNotFoundError:  # before the networks had a class
        return function


def predict_as_monai(scan: Any, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts with MONAI's inferer, inverts the preparation of the probabilities, and decides."""
    inferers, transforms = import_module("monai.inferers"), import_module("monai.transforms")
    meta_tensor = import_module("monai.data").MetaTensor
    with clock.count("prepare"):
        steps = transforms.Compose(
            [
                transforms.Orientationd("image", axcodes="RAS", labels=None),
                transforms.Spacingd("image", (WORKING_MM,) * 3, mode="bilinear"),
                transforms.ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
            ]
        )
        voxels = torch.from_numpy(np.ascontiguousarray(scan.voxels, np.float32))[None]
        data = steps({"image": meta_tensor(voxels, affine=torch.from_numpy(scan.affine))})
    inferer = inferers.SlidingWindowInferer(CROP, 2, 0.5, mode="gaussian")
    with torch.no_grad():
        data["p"] = inferer(data["image"][None], network)[0]
    inverted = transforms.Invertd("p", steps, orig_keys="image", nearest_interp=False, to_tensor=True)(data)
    labels = inverted["p"].argmax(0).numpy().astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, scan.affine), folder / "labels.nii.gz")


def predict_as_nnunet(scan: Any, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts as nnU-Net: cubic interpolation of the image, and linear interpolation of each class.

    The classes are interpolated by the call that skimage's `resize` makes for them.
    """
    zoom = partial(ndimage.zoom, mode="nearest", grid_mode=True)
    with clock.count("prepare"):
        scale = np.array(scan.spacing_mm()) / WORKING_MM
        small = zoom(scan.voxels.astype(np.float32), scale, order=3)
        x = np.clip((small + 1000) / 2000, 0, 1)[None]
    p = sliding_window_inference(x, wrap_network(network), CROP, batch_size=2)
    back = np.array(scan.shape) / p.shape[1:]
    resized = np.zeros((num_classes, *scan.shape), np.float32)
    for channel, voxels in zip(resized, p, strict=True):
        channel[:] = zoom(voxels, back, order=1)
    labels = resized.argmax(0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, scan.affine), folder / "labels.nii.gz")


if __name__ == "__main__":
    main()

"""Throughput of ingestion: medssl against MONAI LoadImage + Orientation + Spacing + save, on two processes each.

`python benchmarks/ingest.py` prints the table; `python benchmarks/ingest.py ENDING SCANS OUT` is MONAI's part of it.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, SaveImage, Spacingd
from scipy import ndimage

from medssl.io import nifti
from medssl.volume import Volume

PR_SET_CHILD_SUBREAPER = 36  # of Linux' prctl
CASES, SHAPE, SPACING, TARGET, WORKERS, ROUNDS = 40, (256, 256, 120), (0.8, 0.8, 2.0), (1.0, 1.0, 1.5), 2, 3


def main() -> None:
    """Prints one markdown table; the ways take turns, so that a busy machine is as unfair to each."""
    ours = ["-m", "medssl.cli", "ingest", "--modality", "CT", "--spacing", ",".join(map(str, TARGET))]
    ways = {
        "medssl ingest": lambda scans, out: [*ours, "--workers", str(WORKERS), str(scans), "--out", str(out)],
        "MONAI, saved with torch.save": lambda scans, out: [__file__, "pt", str(scans), str(out)],
        "MONAI, saved as .nii.gz": lambda scans, out: [__file__, "nii.gz", str(scans), str(out)],
    }
    with tempfile.TemporaryDirectory() as name:
        scans = Path(name, "scans")
        write(scans)
        rounds = [[_seconds(way(scans, Path(name, f"{n}-{n_way}"))) for n_way, way in enumerate(ways.values())]
                  for n in range(ROUNDS)]  # fmt: skip
    size = f"{'x'.join(map(str, SHAPE))} at {SPACING} mm, with labels, to {TARGET} mm"
    print(f"{CASES} CTs of {size}; {WORKERS} processes, from the command to its end; medians of {ROUNDS} rounds\n")
    print("| pipeline | seconds | cases a minute | CPU s a case | medssl is faster by | by CPU time |")
    print("|---|---|---|---|---|---|")
    for n_way, way in enumerate(ways):
        wall, cpu = (median(r[n_way][kind] for r in rounds) for kind in (0, 1))
        times, cpus = (median(r[n_way][kind] / r[0][kind] for r in rounds) for kind in (0, 1))
        print(f"| {way} | {wall:.1f} | {60 * CASES / wall:.0f} | {cpu / CASES:.2f} | {times:.1f} | {cpus:.1f} |")


def write(scans: Path) -> None:
    """Noisy CTs in LPS order with a label of three classes, as a Decathlon set."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    training = []
    for n in range(CASES):
        random = np.random.default_rng(n)
        smooth = ndimage.zoom(random.normal(0, 300, (16, 16, 8)).astype(np.float32), (16, 16, 15), order=1)
        voxels = (smooth + random.normal(0, 25, SHAPE)).round().astype(np.int16)
        label = np.digitize(smooth, (250, 350, 450)).astype(np.uint8)
        for volume in (Volume(voxels, affine, "HU"), Volume(label, affine, "label")):
            folder = scans / ("labelsTr" if volume.unit == "label" else "imagesTr")
            folder.mkdir(parents=True, exist_ok=True)
            nifti.write(volume, folder / f"c{n}.nii.gz")
        training.append({"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"})
    description = {
        "labels": {"0": "background", "1": "a", "2": "b", "3": "c"},
        "modality": {"0": "CT"},
        "training": training,
    }
    (scans / "dataset.json").write_text(json.dumps(description))


def monai(ending: str, scans: Path, out: Path) -> None:
    """The same cases through MONAI's transforms; its processes are forked, which spares them the imports."""
    out.mkdir()
    torch.set_num_threads(1)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
        list(pool.map(partial(_monai_case, out, ending), sorted((scans / "imagesTr").iterdir())))


def _monai_case(out: Path, ending: str, image: Path) -> None:
    keys = ("image", "label")
    steps = Compose([
        LoadImaged(keys), EnsureChannelFirstd(keys), Orientationd(keys, axcodes="RAS"),
        Spacingd(keys, pixdim=TARGET, mode=("bilinear", "nearest")),
    ])  # fmt: skip
    arrays = steps({"image": str(image), "label": str(image).replace("imagesTr", "labelsTr")})
    for key in keys:
        dtype = np.int16 if key == "image" else np.uint8
        if ending == "pt":
            torch.save(torch.as_tensor(arrays[key].numpy().astype(dtype)), out / f"{image.name}-{key}.pt")
        else:
            SaveImage(output_dir=out, output_postfix=key, output_dtype=dtype, separate_folder=False, print_log=False)(
                arrays[key]
            )


def _seconds(words: list[str]) -> tuple[float, float]:
    """Wall and CPU time of a Python program and its processes, who become ours when they lose their parent."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _reap() -> None:
    """Waits for processes that the program left behind, as a server of forks is, so that their time counts too."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    if sys.argv[1:]:
        monai(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()

"""Throughput of ingestion: medssl against MONAI LoadImage + Orientation + Spacing + save, on two processes each."""

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, SaveImage, Spacingd
from scipy import ndimage

from medssl.data.ingest import Options, ingest
from medssl.io import nifti
from medssl.volume import Volume

CASES, SHAPE, SPACING, TARGET, WORKERS = 12, (256, 256, 120), (0.8, 0.8, 2.0), (1.0, 1.0, 1.5), 2


def main() -> None:
    """Prints one markdown table."""
    with tempfile.TemporaryDirectory() as name:
        scans, out = Path(name, "scans"), Path(name)
        write(scans)
        options = Options(spacing_mm=TARGET, modality="CT", workers=WORKERS)
        times = {
            "medssl ingest": _seconds(lambda: ingest(scans, out / "store", options, lambda done, of: None)),
            "MONAI, saved with torch.save": _seconds(lambda: monai(scans, out / "pt", "pt")),
            "MONAI, saved as .nii.gz": _seconds(lambda: monai(scans, out / "nii", "nii.gz")),
        }
    mine = times["medssl ingest"]
    size = f"{'x'.join(map(str, SHAPE))} at {SPACING} mm, with labels, to {TARGET} mm"
    print(f"{CASES} CTs of {size}; {WORKERS} processes, their start included\n")
    print("| pipeline | seconds | cases a minute | ratio |\n|---|---|---|---|")
    for way, seconds in times.items():
        print(f"| {way} | {seconds:.1f} | {60 * CASES / seconds:.0f} | {seconds / mine:.1f} |")


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
    told = {"labels": {"0": "background", "1": "a", "2": "b", "3": "c"}, "modality": {"0": "CT"}, "training": training}
    (scans / "dataset.json").write_text(json.dumps(told))


def monai(scans: Path, out: Path, ending: str) -> None:
    """The same cases through MONAI's transforms."""
    out.mkdir()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_monai_case, out, ending), sorted((scans / "imagesTr").iterdir())))


def _monai_case(out: Path, ending: str, image: Path) -> None:
    keys = ("image", "label")
    steps = Compose([
        LoadImaged(keys), EnsureChannelFirstd(keys), Orientationd(keys, axcodes="RAS"),
        Spacingd(keys, pixdim=TARGET, mode=("bilinear", "nearest")),
    ])  # fmt: skip
    done = steps({"image": str(image), "label": str(image).replace("imagesTr", "labelsTr")})
    for key in keys:
        dtype = np.int16 if key == "image" else np.uint8
        if ending == "pt":
            torch.save(torch.as_tensor(done[key].numpy().astype(dtype)), out / f"{image.name}-{key}.pt")
        else:
            SaveImage(output_dir=out, output_postfix=key, output_dtype=dtype, separate_folder=False, print_log=False)(
                done[key]
            )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

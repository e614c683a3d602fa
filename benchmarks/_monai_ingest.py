"""The cases of `benchmarks.ingest` through MONAI's transforms: python -m benchmarks._monai_ingest ENDING SCANS OUT"""

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, SaveImage, Spacingd

TARGET, WORKERS = (1.0, 1.0, 1.5), 2


def main(ending: str, scans: Path, out: Path) -> None:
    """Prepares all cases of a folder; the processes are forked, which spares them the imports."""
    out.mkdir()
    torch.set_num_threads(1)
    images = sorted((scans / "imagesTr").iterdir()) if (scans / "imagesTr").exists() else sorted(scans.iterdir())
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
        list(pool.map(partial(prepare, out, ending), images))


def prepare(out: Path, ending: str, image: Path) -> None:
    """Reads a case, turns it to RAS, resamples it and saves it: a NIfTI with its label, or a folder of DICOM."""
    files = {"image": str(image)}
    if not image.is_dir():
        files["label"] = str(image).replace("imagesTr", "labelsTr")
    modes = ("bilinear", "nearest")[: len(files)]
    reader = "PydicomReader" if image.is_dir() else "NibabelReader"
    steps = Compose([
        LoadImaged(list(files), reader=reader), EnsureChannelFirstd(list(files)),
        Orientationd(list(files), axcodes="RAS"), Spacingd(list(files), pixdim=TARGET, mode=modes),
    ])  # fmt: skip
    arrays = steps(files)
    for key in files:
        dtype = np.int16 if key == "image" else np.uint8
        if ending == "pt":
            torch.save(torch.as_tensor(arrays[key].numpy().astype(dtype)), out / f"{image.name}-{key}.pt")
        else:
            SaveImage(output_dir=out, output_postfix=key, output_dtype=dtype, separate_folder=False, print_log=False)(
                arrays[key]
            )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

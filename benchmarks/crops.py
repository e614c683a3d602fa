"""Time to one random 96^3 crop of a 512x512x300 CT: the store against MONAI's PersistentDataset + RandSpatialCropd."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from monai.data import PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd
from scipy import ndimage

from medssl.data import store
from medssl.io import nifti
from medssl.volume import Volume

SHAPE, SIDE, CROPS = (512, 512, 300), 96, 40


def main() -> None:
    """Prints one markdown table."""
    volume = scan()
    with tempfile.TemporaryDirectory() as folder:
        ways = {"medssl store (blosc2, ZSTD 1, 64^3)": ours(volume, Path(folder)), "MONAI": monai(volume, Path(folder))}
        times = {name: [_ms(crop) for _ in range(CROPS)] for name, crop in ways.items()}
    store_ms, monai_ms = (median(t) for t in times.values())
    print(f"{CROPS} random crops of {SIDE}^3 from one {'x'.join(map(str, SHAPE))} int16 CT, files in the page cache\n")
    print("| reader | median ms | 90 % ms | ratio |\n|---|---|---|---|")
    for name, t in times.items():
        print(f"| {name} | {median(t):.1f} | {np.quantile(t, 0.9):.1f} | {median(t) / store_ms:.1f} |")
    print(f"\nThe store is {monai_ms / store_ms:.0f} times as fast.")


def scan() -> Volume:
    """Smooth structures with scanner noise of 25 HU in a body that air surrounds."""
    random = np.random.default_rng(0)
    smooth = ndimage.zoom(random.normal(0, 300, (32, 32, 20)).astype(np.float32), (16, 16, 15), order=1)
    voxels = (smooth + random.normal(0, 25, SHAPE)).round().astype(np.int16)
    voxels[:80] = voxels[-80:] = -1000
    return Volume(voxels, np.diag([0.8, 0.8, 1.0, 1.0]), "HU")


def ours(volume: Volume, folder: Path) -> Callable[[], object]:
    """Crops from the store."""
    store.write(folder / "a.b2nd", Volume(volume.voxels[None], volume.affine, "HU"), {})
    stored, random = store.read(folder / "a.b2nd"), np.random.default_rng(1)

    def crop() -> object:
        i, j, k = (int(random.integers(n - SIDE)) for n in SHAPE)
        return stored.crop((i, j, k), (SIDE, SIDE, SIDE))

    return crop


def monai(volume: Volume, folder: Path) -> Callable[[], object]:
    """Crops as MONAI's tutorials cut them: the deterministic part is cached on disk, the crop is drawn from it."""
    nifti.write(volume, folder / "a.nii.gz")
    steps = [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        RandSpatialCropd("image", [SIDE] * 3, random_size=False),
    ]
    data = PersistentDataset([{"image": str(folder / "a.nii.gz")}], Compose(steps), cache_dir=folder / "cache")
    data[0]
    return lambda: data[0]


def _ms(crop: Callable[[], object]) -> float:
    start = time.perf_counter()
    crop()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()

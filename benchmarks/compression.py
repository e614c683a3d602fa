"""Compressed stores of real CT and MR: bytes, error, and the CPU time of a crop, against the store itself.

usage: python -m benchmarks.compression [WORK]; a store that lies in WORK already is not ingested again.
"""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks._commands import make
from medssl.data.manifest import Manifest
from medssl.data.storage.compress import compress_store
from medssl.data.store import Store

SETS, STAGES, CROPS, SIDE = ("hippocampus", "dicom"), (1, 2, 4), 60, 64


def main(work: str = "runs/compression") -> None:
    """Ingests each set, compresses it with different numbers of stages, and prints a table."""
    print("`medssl compress STORE/manifest.csv --out OUT --stages N`, cubes of 4^3 voxels, 256 words a stage.")
    print(f"Crops of {SIDE}^3 at random places: median CPU milliseconds of {CROPS}, in turn from both stores.\n")
    titles = (
        "set",
        "images",
        "stages",
        "store / compressed",
        "voxels / compressed",
        "PSNR dB",
        "crop ms",
        "of the store",
    )
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name in SETS:
        store = Path(work, name)
        make(store / "manifest.csv", f"ingest ../shared/data/{name} --out {store}")
        manifest = Manifest.read(store / "manifest.csv")
        for stages in STAGES:
            out = Path(work, f"{name}-{stages}-{time.time_ns()}")
            done = compress_store(manifest, out, num_stages=stages)
            small_ms, store_ms = time_crops([Manifest.read(out / "manifest.csv"), manifest])
            sizes = [f"{size / done.bytes_after:.0f}" for size in (done.bytes_before, done.raw_bytes)]
            cells = [name, str(done.cases), str(stages), *sizes, f"{done.psnr_db:.1f}"]
            print(f"| {' | '.join([*cells, f'{small_ms:.1f}', f'{store_ms:.1f}'])} |", flush=True)
    print("\nRatios are of bytes. PSNR: median over images, for the range between the permilles of each.")


def time_crops(manifests: list[Manifest]) -> list[float]:
    """Returns the median CPU milliseconds of the same crops of each store."""
    draw, stores = np.random.default_rng(0), [Store(manifest) for manifest in manifests]
    times: list[list[float]] = [[] for _ in stores]
    for _ in range(CROPS):
        number = int(draw.integers(len(manifests[0].cases)))
        place = draw.random(3)
        for manifest, store, spent in zip(manifests, stores, times, strict=True):
            case = manifest.cases[number]
            i, j, k = (int(p * max(1, n - SIDE)) for p, n in zip(place, case.shape, strict=True))
            store.image(case)  # opened before
            begin = time.process_time()
            store.crop(case, (i, j, k), (SIDE, SIDE, SIDE))
            spent.append(1000 * (time.process_time() - begin))
    return [median(spent) for spent in times]


if __name__ == "__main__":
    main(*sys.argv[1:])

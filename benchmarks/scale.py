"""What 100,000 and 1,000,000 volumes cost: opening the manifest, the start of an epoch, an item, a loader process."""

import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from medssl.data import store
from medssl.data.manifest import ARROW_SUFFIX, Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import train_loader
from medssl.volume import Volume

FILES, SIDE, ROWS, ITEMS = 40, 48, (40, 100_000, 1_000_000), 200
BLANK = Case("", "", "", None, "CT", "HU", (1.0, 1.0, 1.5), (SIDE,) * 3, 1, "train", "s", "", site="a")


def main() -> None:
    """Prints a markdown table."""
    torch.set_num_threads(1)
    print(
        f"Manifests of so many rows on {FILES} files of {SIDE}^3, crops of 16^3; CPU seconds of one process. A loader"
        " process is compared with one for 40 rows.\n"
    )
    print("| rows | open CSV s | open s | first batch s | item ms | sent to a loader kB | its memory MB more |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, memory = Path(name), 0.0
        shas = write_files(folder)
        for rows in ROWS:
            path = folder / f"{rows}.csv"
            write_manifest(path, shas, rows)
            arrow = path.with_suffix(ARROW_SUFFIX)
            hidden = arrow.rename(folder / "hidden") if arrow.exists() else None
            csv_s = time_call(lambda path=path: Manifest.read(path)) if rows < ROWS[-1] else None
            if hidden:
                hidden.rename(arrow)
            open_s = time_call(lambda path=path: Manifest.read(path))
            epoch_s = time_call(lambda path=path: next(iter(make_loader(open_crops(path)))))
            crops = open_crops(path)
            item_ms = 1000 * time_call(lambda crops=crops: [crops[n] for n in range(ITEMS)]) / ITEMS
            kilobytes, process_mb = len(pickle.dumps(crops)) / 1e3, measure_process(crops)
            memory = memory or process_mb
            columns = ("" if csv_s is None else f"{csv_s:.2f}", f"{open_s:.2f}", f"{epoch_s:.2f}", f"{item_ms:.2f}")
            print(f"| {rows:,} | {' | '.join(columns)} | {kilobytes:.0f} | {process_mb - memory:.0f} |", flush=True)


def write_files(folder: Path) -> list[str]:
    """Writes the volumes and returns their hashes."""
    random = np.random.default_rng(0)
    volumes = (
        Volume(random.normal(0, 99, (1, SIDE, SIDE, SIDE)).astype(np.int16), np.eye(4), "HU") for _ in range(FILES)
    )
    return [store.write(folder / f"{n}.b2nd", volume, {}) for n, volume in enumerate(volumes)]


def write_manifest(path: Path, shas: list[str], rows: int) -> None:
    """Writes a manifest whose rows take turns at the files; every tenth is in split val."""
    cases = (
        replace(
            BLANK, id=f"case-{n:08d}", patient=f"patient-{n // 2:08d}", image=f"{n % FILES}.b2nd",
            split="train" if n % 10 else "val", source=f"series-{n:08d}", sha256=shas[n % FILES],
        )
        for n in range(rows)
    )  # fmt: skip
    Manifest(tuple(cases), path.parent).write(path)


def open_crops(path: Path) -> CropDataset:
    """Crops of the split train."""
    return CropDataset(Manifest.read(path).in_split("train"), IntensityNormalization(), (16, 16, 16))


def make_loader(crops: CropDataset) -> "torch.utils.data.DataLoader":
    """The batches of a training in its own process."""
    return train_loader(crops, TrainConfig(num_workers=0))


def time_call(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_process(crops: CropDataset) -> float:
    """Memory in MB that a loader process does not share with others, after some items."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=load_items, args=(crops, sender))
    process.start()
    megabytes: float = receiver.recv()
    process.join()
    return megabytes


def load_items(crops: CropDataset, sender: Connection) -> None:
    """Loads items and sends the private memory of this process in MB."""
    for number in range(ITEMS):
        crops[number]
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sender.send(sum(int(row.split()[1]) for row in rows if row.startswith("Private")) / 1e3)


if __name__ == "__main__":
    main()

"""Whether the loader keeps a pretraining fed: time waited for crops against the time of a SparK step on two cores."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy import ndimage

from medssl.data import store
from medssl.data.crops import CropDataset
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.objectives.spark import Config, Spark
from medssl.training import data_loaders as feed
from medssl.training.config import TrainConfig
from medssl.volume import Volume

CASES, SHAPE, STEPS, WARM = 4, (256, 256, 160), 6, 1
CROPS = ((64, 4), (96, 1))  # side, crops in a batch


def main() -> None:
    """Prints one markdown table."""
    torch.set_num_threads(2)
    size = "x".join(map(str, SHAPE))
    print(f"SparK by default on augmented crops of {CASES} CTs of {size}; CPU, 2 threads, medians of {STEPS} steps\n")
    print("| crop | batch | loader | step s | waited ms | share of the time | crops/s |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        manifest = pool(Path(name))
        for side, batch in CROPS:
            for workers, where in enumerate(("in the training's process", "one worker")):
                step, wait = epoch(manifest, side, batch, workers)
                row = f"| {side}^3 | {batch} | {where} | {step:.2f} | {1000 * wait:.0f} "
                print(f"{row}| {wait / (wait + step):.1%} | {batch / (wait + step):.2f} |", flush=True)


def pool(folder: Path) -> Manifest:
    """A store of unlabelled CTs: smooth structures with noise, air around them."""
    random, cases = np.random.default_rng(0), []
    for n in range(CASES):
        smooth = ndimage.zoom(random.normal(0, 300, (16, 16, 10)).astype(np.float32), 16, order=1)
        voxels = (smooth + random.normal(0, 25, SHAPE)).round().astype(np.int16)[None]
        voxels[:, :40] = voxels[:, -40:] = -1000
        sha = store.write(folder / f"{n}.b2nd", Volume(voxels, np.diag([1.0, 1.0, 1.5, 1.0]), "HU"), {})
        blank = Case(str(n), str(n), f"{n}.b2nd", None, "CT", "HU", (1.0, 1.0, 1.5), SHAPE, 1, "train", "", "")
        cases.append(replace(blank, sha256=sha))
    return Manifest(tuple(cases), folder)


def epoch(manifest: Manifest, side: int, batch: int, workers: int) -> tuple[float, float]:
    """Medians of the seconds of a step and of those waited before it."""
    torch.manual_seed(0)
    learner = Spark(Config(), build_encoder(EncoderConfig(), 1))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    dataset = CropDataset(manifest, IntensityNormalization(), (side, side, side), augment_config=AugmentConfig())
    crops = iter(
        feed.train_loader(
            dataset, TrainConfig(epochs=1, steps_per_epoch=STEPS + WARM, batch_size=batch, num_workers=workers)
        )
    )
    steps, waits = [], []
    for _ in range(STEPS + WARM):
        start = time.perf_counter()
        batch_of_crops = next(crops)
        waits.append(time.perf_counter() - start)
        start = time.perf_counter()
        optimiser.zero_grad()
        learner.step(batch_of_crops).loss.backward()
        optimiser.step()
        steps.append(time.perf_counter() - start)
    return median(steps[WARM:]), median(waits[WARM:])


if __name__ == "__main__":
    main()

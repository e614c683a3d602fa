"""A training step of every objective: crops a second and peak memory, by the side of the crop."""

import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.loader import pool
from benchmarks.spark import high_water_mb
from medssl import config
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.training import data_loaders as feed
from medssl.training.config import TrainConfig
from medssl.training.pretrain import PretrainConfig

NAMES = (
    "spark",
    "mae",
    "inpaint",
    "volume_fusion",
    "cross_view",
    "dino",
    "jepa",
    "select_patch",
    "order",
    "rotation",
    "vicreg",
    "global_local",
    "graph_match",
    "look",
    "bag_of_words",
    "alteration",
    "predictive",
    "sum",
)
STEPS, WARM = 3, 1
CPU = ((48, 4), (64, 4))  # side, crops in a batch
GPU = ((96, 8), (128, 4))


def main() -> None:
    """Prints one markdown table."""
    gpu = torch.cuda.is_available()
    where = f"{torch.cuda.get_device_name()}, bf16" if gpu else "CPU, fp32, 1 thread"
    print(f"configs/pretrain/*.yaml with the default encoder; {where}, torch {torch.__version__}; medians of {STEPS}\n")
    print("| objective | crop | batch | s a step | crops/s | against spark | peak GB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        manifest = pool(Path(place))
        for side, batch in GPU if gpu else CPU:
            spark = 0.0
            for name in NAMES:
                with multiprocessing.get_context("spawn").Pool(1) as fresh:
                    seconds, peak_gb = fresh.apply(measure, (name, manifest, side, batch))
                spark = spark or seconds
                row = f"| {name} | {side}^3 | {batch} | {seconds:.2f} | {batch / seconds:.2f} "
                print(f"{row}| {seconds / spark:.2f}x | {peak_gb:.2f} |", flush=True)
    print(
        "\nSeconds are CPU time on a CPU, which other processes disturb least, and wall time on a GPU. Peak: growth of"
    )
    print("a fresh process over its steps (of allocated memory on a GPU). Views of a crop count as one crop.")


def measure(name: str, manifest: Manifest, side: int, batch: int) -> tuple[float, float]:
    """Seconds of a step (loss, backward, optimiser, what comes after) and how far memory grew, in a fresh process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = config.read(f"configs/pretrain/{name}.yaml", ["manifest=none", "run=none"], PretrainConfig)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = config.class_for_config(settings.objective)(settings.objective, build_encoder(EncoderConfig(), 1)).to(
        device
    )
    dataset = CropDataset(
        manifest,
        IntensityNormalization(),
        (side, side, side),
        num_views=learner.views,
        min_overlap=settings.min_view_overlap,
    )
    crops = iter(feed.train_loader(dataset, TrainConfig(epochs=1, steps_per_epoch=STEPS + WARM, batch_size=batch)))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    before, times = peak_gb(device), []
    for _ in range(STEPS + WARM):
        batch_of_crops = next(crops).to(device)
        start = clock(device)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = learner.step(batch_of_crops).loss
        loss.backward()
        optimiser.step()
        learner.after_step()
        times.append(clock(device) - start)
    return median(times[WARM:]), peak_gb(device) - before


def clock(device: torch.device) -> float:
    """Seconds, after all queued work is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_gb(device: torch.device) -> float:
    """The most memory that was ever held."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else high_water_mb() / 2**10


if __name__ == "__main__":
    main()

"""How well a GPU is used: where the time of a SparK step goes, and the utilisation meanwhile."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median

import torch

from benchmarks.loader import pool
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import augment_crops
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.objectives.reconstruction.spark import Config, Spark
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import train_loader

SIDE, BATCH, STEPS, WARM, LEVELS = 128, 8, 200, 20, (32, 64, 128, 256, 320, 320)
STAGES = ("wait for the loader", "copy and augment", "forward", "backward", "optimizer")


def main() -> None:
    """Prints a markdown table, or that there is no GPU."""
    if not torch.cuda.is_available():
        print("There is no GPU on this machine; nothing is measured.")
        return
    for augment_config, augment_on, title in (
        (None, "loader", "plain"),
        (AugmentConfig(), "loader", "augmented"),
        (AugmentConfig(), "device", "on the GPU augmented"),
    ):
        with tempfile.TemporaryDirectory() as name, sample_utilisation() as samples:
            times = time_steps(Path(name), augment_config, augment_on, torch.device("cuda"))
        total = sum(times.values())
        print(f"{title} crops of {SIDE}^3, batch {BATCH}, bf16, medians of {STEPS} steps, {BATCH / total:.1f} crops/s")
        print(f"utilisation by nvidia-smi: {mean(samples):.0f} %\n\n| stage | ms | fraction |\n|---|---|---|")
        for stage, seconds in times.items():
            print(f"| {stage} | {1000 * seconds:.1f} | {seconds / total:.1%} |")
        print()


def time_steps(
    folder: Path, augment_config: AugmentConfig | None, augment_on: str, device: torch.device
) -> dict[str, float]:
    """Median seconds of each stage of a step; the device is waited for after each stage."""
    encoder = build_encoder(EncoderConfig(channels=LEVELS, strides=(1, *[2] * (len(LEVELS) - 1))), 1)
    learner = Spark(Config(), encoder).to(device)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    dataset = CropDataset(pool(folder), IntensityNormalization(), (SIDE,) * 3, augment_config=augment_config)
    config = TrainConfig(epochs=1, steps_per_epoch=STEPS + WARM, batch_size=BATCH, augment_on=augment_on)
    batches = iter(train_loader(dataset, config))
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(STEPS + WARM):
        marks = [time.perf_counter()]
        crops = next(batches)
        marks.append(mark_time(device))
        crops = augment_crops(crops.to(device, non_blocking=True))
        marks.append(mark_time(device))
        with torch.autocast(device.type, torch.bfloat16):
            loss = learner.step(crops).loss
        marks.append(mark_time(device))
        optimizer.zero_grad()
        loss.backward()
        marks.append(mark_time(device))
        optimizer.step()
        marks.append(mark_time(device))
        for stage, start, end in zip(STAGES, marks[:-1], marks[1:], strict=True):
            seconds[stage].append(end - start)
    return {stage: median(values[WARM:]) for stage, values in seconds.items()}


def mark_time(device: torch.device) -> float:
    """The time after the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def sample_utilisation() -> Iterator[list[float]]:
    """Gives a list that grows by the utilisation of the first GPU in percent, each second, while the block runs."""
    samples, stop = [0.0], threading.Event()
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def sample() -> None:
        while not stop.wait(1):
            samples.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield samples
    stop.set()
    thread.join()


if __name__ == "__main__":
    main()

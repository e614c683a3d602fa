"""Memory and time of a training step as `medssl plan` estimates them from shapes, against measured ones.

usage: python -m benchmarks.estimates [RESULTS.csv]; points that lie in RESULTS.csv already are not measured again.
"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from pydantic import TypeAdapter
from torch import nn

from benchmarks._memory import read_peak_mb
from medssl.data.crops import Crops
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.encoder import EncoderChoice
from medssl.nn.encoders.base import BaseEncoderConfig
from medssl.nn.step import Step
from medssl.objectives.reconstruction.spark import Config, Spark
from medssl.planning.network_cost import estimate_cost, measure_speed

ENCODERS: dict[str, dict[str, object]] = {
    "residual 16-128": {"name": "residual"},
    "residual 32-320": {"name": "residual", "channels": [32, 64, 128, 256, 320], "strides": [1, 2, 2, 2, 2]},
    "residual 32-256, 1x3x3 first": {
        "name": "residual",
        "channels": [32, 64, 128, 256],
        "strides": [1, [1, 2, 2], 2, 2],
        "kernels": [[1, 3, 3], [1, 3, 3], 3, 3],
    },
    "plainconv 32-256": {"name": "plainconv", "channels": [32, 64, 128, 256]},
    "ResEnc-M": {"name": "resenc", "size": "M"},
    "convnext 16-128": {"name": "convnext"},
    "primus": {"name": "primus"},
}
POINTS = [(encoder, side, 2) for encoder in ENCODERS for side in (48, 64)] + [
    ("residual 16-128", 96, 2),
    ("residual 32-320", 96, 2),
    ("convnext 16-128", 96, 2),
]
STEPS = 3  # that are measured, after one that is not
COLUMNS = ("encoder", "crop", "batch", "gb", "s", "spark_gb", "spark_s")


def main(results: str = "runs/estimates.csv") -> None:
    """Prints a row for each point, and how far off the estimates are."""
    path = Path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    done = {(row["encoder"], int(row["crop"])) for row in csv.DictReader(path.open(newline=""))}
    for encoder, side, batch in POINTS:
        if (encoder, side) not in done:
            row = {"encoder": encoder, "crop": side, "batch": batch} | measure_point(encoder, side, batch)
            with path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)
    print_table(list(csv.DictReader(path.open(newline=""))))


def measure_point(encoder: str, side: int, batch: int) -> dict[str, float]:
    """Returns the columns of a point: a U-Net and SparK, each in a process of its own."""
    row: dict[str, float] = {}
    for learner in ("unet", "spark"):
        command = [sys.executable, "-m", "benchmarks.estimates", learner, encoder, str(side), str(batch)]
        row |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row


def measure_steps(learner: str, encoder: str, side: str, batch: str) -> None:
    """Prints what a few steps of AdamW took in this process, by one thread."""
    torch.set_num_threads(1)
    config, x = read_encoder(encoder), torch.rand(int(batch), 1, 1, *(int(side),) * 3)
    network = UNet(config) if learner == "unet" else Spark(Config(), config.build(1))
    gb, seconds = _run_steps(network, x)
    print(json.dumps({"gb": gb, "s": seconds} if learner == "unet" else {"spark_gb": gb, "spark_s": seconds}))


def read_encoder(name: str) -> BaseEncoderConfig:
    """Returns the settings of one of `ENCODERS`."""
    config: BaseEncoderConfig = TypeAdapter(EncoderChoice).validate_python(ENCODERS[name])
    return config


class UNet(nn.Module):
    """A segmentation network of two classes, with the loss that a training step has."""

    def __init__(self, config: BaseEncoderConfig) -> None:
        super().__init__()
        self.encoder = config.build(1)
        self.decoder = UNetDecoder(self.encoder.channels, self.encoder.strides, self.encoder.kernels)
        self.head = SegmentationHead(self.decoder.channels[0], 2, self.encoder.strides[0])

    def step(self, crops: Crops) -> Step:
        """Returns the cross-entropy of a batch against labels that follow from its intensities."""
        x = crops.x.flatten(0, 1)
        logits = self.head(self.decoder(self.encoder(x))[0])
        return Step(nn.functional.cross_entropy(logits, (x[:, 0] > 0.5).long()), {})


def _run_steps(learner: UNet | Spark, x: torch.Tensor) -> tuple[float, float]:
    """Returns the peak memory of this process in GB, and the median CPU time of a step."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    affine, corner = torch.eye(4).expand(len(x), 1, 4, 4), torch.zeros(len(x), 1, 3, dtype=torch.int64)
    crops = Crops(x, corner, torch.tensor([x.shape[3:]] * len(x)), affine, torch.arange(len(x)))
    seconds = []
    for _ in range(STEPS + 1):
        begin = time.process_time()
        optimizer.zero_grad()
        learner.step(crops).loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - begin)
    return read_peak_mb() / 1024, median(seconds[1:])


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints a row for each point, and the quantiles of measured relative to estimated values."""
    print(
        "| encoder | crop | batch | million weights | GB estimated | U-Net | SparK | s estimated | U-Net | SparK |\n"
        + "|---" * 10
        + "|"
    )
    torch.set_num_threads(1)
    flops_per_s = measure_speed("cpu", time.process_time)
    ratios: dict[str, list[float]] = {"memory of the U-Net": [], "time of the U-Net": [], "time of SparK": []}
    for row in rows:
        gb, seconds, spark_gb, spark_s = (float(row[key]) for key in COLUMNS[3:])
        crop, batch = (int(row["crop"]),) * 3, int(row["batch"])
        cost = estimate_cost(read_encoder(row["encoder"]), 1, crop)
        estimated_gb, estimated_s = cost.memory_gb(batch), cost.step_seconds(batch, flops_per_s)
        print(
            f"| {row['encoder']} | {row['crop']}^3 | {batch} | {cost.parameters / 1e6:.2f} |"
            f" {estimated_gb:.2f} | {gb:.2f} | {spark_gb:.2f} | {estimated_s:.1f} | {seconds:.1f} | {spark_s:.1f} |"
        )
        for name, ratio in zip(ratios, (gb / estimated_gb, seconds / estimated_s, spark_s / estimated_s), strict=True):
            ratios[name].append(ratio)
    print()
    for name, values in ratios.items():
        low, middle, high = min(values), median(values), max(values)
        print(f"Measured {name}, relative to the estimate: {low:.2f} to {high:.2f}, median {middle:.2f}.")


if __name__ == "__main__":
    measure_steps(*sys.argv[1:]) if len(sys.argv) == 5 else main(*sys.argv[1:])

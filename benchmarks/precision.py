"""A finetuning step on a CPU in fp32 and in bf16, with torch's group norm and with ours, by the side of the crop."""

import copy
import time
from statistics import median

import torch
from torch import nn

from benchmarks.spark import crops
from medssl.data.crops import Crops
from medssl.nn import norms
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.tasks.segment import Config, SegmentTask

SIDES, CHANNELS, CLASSES, BATCH, TURNS = (32, 48, 64), (8, 16, 32, 64), 3, 2, 7


def main() -> None:
    """Prints one markdown table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    channels = ", ".join(map(str, CHANNELS))
    print(f"Encoder of {channels} channels, {BATCH} crops, CPU time of loss and gradient, medians of {TURNS} turns.\n")
    print("| crop | norm | fp32 ms | bf16 ms | fp32 against torch's | bf16 against torch's | bf16 against fp32 |")
    print("|---|---|---|---|---|---|---|")
    for side in SIDES:
        seconds = _measure(side)
        for norm in ("torch's", "ours"):
            full, half = seconds[norm, False], seconds[norm, True]
            gains = (seconds["torch's", False] / full, seconds["torch's", True] / half, full / half)
            ratios = " | ".join(f"{gain:.2f}x" for gain in gains)
            print(f"| {side}^3 | {norm} | {full * 1e3:.0f} | {half * 1e3:.0f} | {ratios} |", flush=True)


def _measure(side: int) -> dict[tuple[str, bool], float]:
    """Seconds of a step by norm and by whether it ran in bf16, all four in turn."""
    ours = SegmentTask(Config(), build_encoder(EncoderConfig(channels=CHANNELS), 1), CLASSES, (side, side, side))
    with_torch = copy.deepcopy(ours)
    for module in with_torch.modules():
        if isinstance(module, norms.GroupNorm):
            module.__class__ = nn.GroupNorm
    label = torch.randint(0, CLASSES, (BATCH, 1, side, side, side))
    batch = crops(torch.rand(BATCH, 1, 1, side, side, side), label)
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(TURNS):
        for name, task in (("torch's", with_torch), ("ours", ours)):
            for half in (False, True):
                times.setdefault((name, half), []).append(_step(task, batch, half))
    return {key: median(some) for key, some in times.items()}


def _step(task: SegmentTask, batch: Crops, half: bool) -> float:
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = task.step(batch).loss
    loss.backward()
    return time.process_time() - start


if __name__ == "__main__":
    main()

"""Windows of one size through a compiled network and through the plain one: CPU time, and that of compiling.

usage: python -m benchmarks.compiled
"""

import os
import tempfile
from statistics import median

import numpy as np
import torch

from medssl.inference.networks.torch_network import TorchNetwork
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.tasks.segment import Config, SegmentTask

CLASSES, BATCH, TURNS = 5, 2, 5
NETWORKS = {
    "8, 16, 32, 64 channels": (EncoderConfig(channels=(8, 16, 32, 64)), (48, 48, 32)),
    "16, 32, 64, 128 channels": (EncoderConfig(channels=(16, 32, 64, 128)), (64, 64, 64)),
}
PRECISIONS = ("fp32",)


def main() -> None:
    """Prints a row for each network and precision."""
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    print(f"`torch.compile(dynamic=False)`, one thread, batches of {BATCH} windows, medians of {TURNS} turns.")
    print("CPU time includes that of the compiler; a last batch of another size would be compiled again.\n")
    titles = (
        "network",
        "window",
        "precision",
        "plain, ms a window",
        "compiled",
        "ratio",
        "compiling, CPU s",
    )
    print(f"| {' | '.join((*titles, 'pays from windows', 'labels equal'))} |\n|{'---|' * (len(titles) + 2)}")
    for name, (encoder, size) in NETWORKS.items():
        torch.manual_seed(0)
        task = SegmentTask(Config(), build_encoder(encoder, 1), CLASSES, size).eval()
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
                torch.compiler.reset()
                cells = " | ".join(measure(task, size, precision))
            print(f"| {name} | {'x'.join(map(str, size))} | {precision} | {cells} |", flush=True)


def measure(task: SegmentTask, size: tuple[int, int, int], precision: str) -> list[str]:
    """Returns the cells of a row: milliseconds, their ratio, seconds of compiling, windows until it pays, agreement."""
    compiled = torch.compile(task.probability, dynamic=False)
    networks = [TorchNetwork(function, precision=precision) for function in (task.probability, compiled)]
    windows = np.random.default_rng(0).random((BATCH, 1, *size), np.float32)
    networks[0](windows)
    start = read_cpu_seconds()
    networks[1](windows)
    first = read_cpu_seconds() - start
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for network, times in zip(networks, seconds, strict=True):
            start = read_cpu_seconds()
            network(windows)
            times.append((read_cpu_seconds() - start) / BATCH)
    plain_s, compiled_s = map(median, seconds)
    compiling_s = first - BATCH * compiled_s
    pays = f"{compiling_s / (plain_s - compiled_s):.0f}" if compiled_s < plain_s else "never"
    labels = [network(windows).argmax(1) for network in networks]
    equal = float((labels[0] == labels[1]).float().mean())
    times_ms = [f"{plain_s * 1e3:.0f}", f"{compiled_s * 1e3:.0f}", f"{compiled_s / plain_s:.2f}x"]
    return [*times_ms, f"{compiling_s:.0f}", pays, f"{equal:.4%}"]


def read_cpu_seconds() -> float:
    """Returns the CPU time of this process and of the compilers that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()

"""Memory of a masked encoder over 200 masks: batches of as many patches as are visible, and of one of 16 sizes."""

import subprocess
import sys
import time
from pathlib import Path

import torch

from medssl.nn import sparse
from medssl.nn.encoder import ResEncoder

NUM_STEPS, SHOWN = 200, (20, 60, 100, 200)
ARMS = {"any": "any number of patches", "sizes": "one of 16 sizes"}


def main() -> None:
    """Prints the resident memory and the CPU time of each arm, in a process of its own."""
    print(f"| batch | {' | '.join(f'MB after {step}' for step in SHOWN)} | CPU s |\n|{'---|' * (len(SHOWN) + 2)}")
    for arm, name in ARMS.items():
        command = [sys.executable, "-m", "benchmarks.mask_memory", arm]
        row = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"| {name} | {row} |", flush=True)


def train(arm: str) -> None:
    """Prints one row: forward and backward passes of a small encoder under random masks."""
    torch.set_num_threads(1)
    if arm == "any":
        sparse.choose_batch_size = lambda num_visible, num_patches: num_visible
    encoder = ResEncoder((8, 16, 32), (1, 2, 2))
    x, generator = torch.rand(2, 1, 32, 32, 32), torch.Generator().manual_seed(0)
    start, memory = time.process_time(), []
    for step in range(1, NUM_STEPS + 1):
        visible = torch.rand(2, 1, 8, 8, 8, generator=generator) < 0.1 + 0.8 * torch.rand((), generator=generator)
        sum(level.mean() for level in encoder(x, visible)).backward()
        encoder.zero_grad()
        if step in SHOWN:
            memory.append(_read_resident_mb())
    print(" | ".join(f"{value:.0f}" for value in [*memory, time.process_time() - start]))


def _read_resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


if __name__ == "__main__":
    train(sys.argv[1]) if len(sys.argv) > 1 else main()

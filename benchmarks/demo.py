"""The demo from nothing: how long it takes, how much memory, what it found, and what other seeds find.

usage: python -m benchmarks.demo [FOLDER] [--seeds N]; what the demo wrote is kept in FOLDER, and its nodules are
trained again with the seeds 1 to N, 2 unless given.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._commands import run
from medssl.predictions_folder import read_findings, read_index


def main(words: list[str]) -> None:
    """Runs `medssl demo` once, prints its figures and its last lines, and trains its nodules with other seeds."""
    parser = argparse.ArgumentParser("python -m benchmarks.demo")
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder, "demo")
        run_demo(out)
        print("| seed of the training | nodules found at 1 false positive per scan | findings |\n|---|---|---|")
        for seed in range(args.seeds + 1):
            predictions = out / "predictions" / (f"nodules-{seed}" if seed else "nodules")
            if seed:
                train_nodules(out, predictions, seed)
            print_nodules(seed, predictions)


def run_demo(out: Path) -> None:
    """Runs the demo, and prints minutes, memory and its last lines."""
    began = time.monotonic()
    command = [sys.executable, "-m", "medssl.cli", "demo", "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    minutes = (time.monotonic() - began) / 60
    if process.returncode:
        sys.exit(process.stderr.strip().splitlines()[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (peak.ru_utime + peak.ru_stime) / 60
    print("| minutes (at most 8) | CPU minutes | peak memory of a process, GB (at most 6) |\n|---|---|---|")
    print(f"| {minutes:.1f} | {cpu:.1f} | {peak.ru_maxrss / 2**20:.1f} |\n")
    beginnings = ("organs,", "difference", "Pretraining did", "nodules,")
    rows = [row for row in process.stdout.splitlines() if row.startswith(beginnings)]
    print("\n".join(f"    {row}" for row in rows))
    print("\nMinutes depend on what else runs; the CPU minutes are those of one free core.\n")


def train_nodules(out: Path, predictions: Path, seed: int) -> None:
    """Trains the demo's detector with another seed, and scores it on the same held-out scans."""
    manifest, trained = out / "store" / "manifest.csv", out / "runs" / predictions.name
    run(f"finetune configs/demo/nodules.yaml manifest={manifest} run={trained} train.seed={seed}")
    run(f"predict {trained} {manifest} --out {predictions}")
    run(f"evaluate {predictions} --labels {manifest}")


def print_nodules(seed: int, predictions: Path) -> None:
    """Prints how many nodules were found, and how many findings that took."""
    scores = json.loads((predictions / "evaluation" / "summary.json").read_text())["lesions"]["nodule"]
    low, estimate, high = (scores["sensitivity"]["1"][key] for key in ("low", "estimate", "high"))
    findings = sum(len(read_findings(predictions / case)) for case in read_index(predictions).cases)
    print(f"| {seed} | {estimate:.2f} [{low:.2f}, {high:.2f}] of {scores['lesions']} | {findings} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The demo's nodules with other seeds of the training: how many are found in the same held-out scans.

usage: python -m benchmarks.demo_seeds [--seeds SEED ...]; the demo itself trains with the seed 0.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from benchmarks._commands import run
from medssl.cli import load_script
from medssl.predictions_folder import read_findings, read_index


def main(words: list[str]) -> None:
    """Prints a row for each seed."""
    parser = argparse.ArgumentParser("python -m benchmarks.demo_seeds")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(sys.stderr):
            load_script("demo").make_store(folder, seed=0)
        print("| seed | nodules found at 1 false positive per scan | findings |\n|---|---|---|")
        for seed in args.seeds:
            print_nodules(seed, train_nodules(folder, seed))


def train_nodules(folder: Path, seed: int) -> Path:
    """Trains the demo's detector, predicts and scores the held-out scans, and returns the predictions."""
    manifest, trained, predictions = folder / "store" / "manifest.csv", folder / f"run{seed}", folder / f"out{seed}"
    run(f"finetune configs/demo/nodules.yaml manifest={manifest} run={trained} train.seed={seed}")
    run(f"predict {trained} {manifest} --out {predictions}")
    run(f"evaluate {predictions} --labels {manifest}")
    return predictions


def print_nodules(seed: int, predictions: Path) -> None:
    """Prints how many nodules were found, and how many findings the predictions have."""
    scores = json.loads((predictions / "evaluation" / "summary.json").read_text())["lesions"]["nodule"]
    low, estimate, high = (scores["sensitivity"]["1"][key] for key in ("low", "estimate", "high"))
    findings = sum(len(read_findings(predictions / case)) for case in read_index(predictions).cases)
    print(f"| {seed} | {estimate:.2f} [{low:.2f}, {high:.2f}] of {scores['lesions']} | {findings} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

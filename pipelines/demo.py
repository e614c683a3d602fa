"""Runs the whole path on synthetic scans, and opens the review app in a terminal: medssl demo --out demo"""

import argparse
import json
import sys
from pathlib import Path

from medssl import cli
from medssl.errors import BadInput

LABELS = 4

ARMS = ("pretrained", "scratch")
NODULE_MM = (12.0, 24.0)  # at least three voxels across


def main(words: list[str]) -> None:
    """Makes scans, ingests, pretrains, compares organs with and without pretraining, and detects nodules."""
    args = build_parser().parse_args(words)
    out: Path = args.out
    if out.exists():
        raise BadInput(f"{out}: exists already; remove it or choose another --out")
    print(f"The demo takes about {'one minute' if args.quick else '8 minutes'} on two CPU cores.", flush=True)
    make_store(out, args.seed, args.quick)
    short = ["train.epochs=1", "train.steps_per_epoch=3"] if args.quick else []
    encoder, manifest = f"{out}/runs/encoder", f"manifest={out}/store/manifest.csv"
    _run_command("pretrain", "configs/demo/pretrain.yaml", manifest, f"run={encoder}", *short)
    for arm in ARMS:
        start = f"pretrained={encoder if arm == 'pretrained' else 'null'}"
        train_and_score(out, arm, "configs/demo/organs.yaml", start, f"num_labelled={LABELS}", *short)
    nodules = train_and_score(out, "nodules", "configs/demo/nodules.yaml", *short)
    _print_summary(out)
    if sys.stdin.isatty() and sys.stdout.isatty():
        _run_command("review", str(nodules), "--demo")


def make_store(out: Path, seed: int, is_quick: bool = False) -> None:
    """Simulates chest CTs as DICOM and NIfTI in `out`/scans, and ingests them into `out`/store."""
    from medssl.data.phantoms import datasets

    size = (8, 4, (48, 48, 48), 6.0) if is_quick else (36, 8, (72, 72, 72), 4.0)
    datasets.write_demo_folder(out / "scans", seed, *size, nodule_mm=NODULE_MM)
    _run_command("ingest", f"{out}/scans", "--out", f"{out}/store", "--split-fractions", "train=0.6,val=0.1,test=0.3")


def train_and_score(out: Path, name: str, *settings: str) -> Path:
    """Finetunes, predicts the held-out scans and scores the predictions, whose folder it returns."""
    manifest, predictions = f"{out}/store/manifest.csv", out / "predictions" / name
    _run_command("finetune", *settings, f"manifest={manifest}", f"run={out}/runs/{name}")
    _run_command("predict", f"{out}/runs/{name}", manifest, "--out", str(predictions))
    _run_command("evaluate", str(predictions), "--labels", manifest)
    return predictions


def _run_command(name: str, *words: str) -> None:
    print(f"\n$ medssl {name} {' '.join(words)}", flush=True)
    code = cli.run(name, list(words))
    if code:
        sys.exit(code)


def _print_summary(out: Path) -> None:
    """Prints both arms' Dice, the sensitivity for nodules, the verdict on pretraining, and where everything is."""
    from medssl.evaluation.compare import ALL, compare

    folders = [out / "predictions" / arm / "evaluation" for arm in ARMS]
    _run_command("compare", *map(str, folders), "--names", *ARMS)
    row = next(r for r in compare(folders[0], folders[1]) if r.label == ALL)
    print(f"\norgans, {LABELS} labelled scans: mean Dice {row.first:.3f} pretrained, {row.second:.3f} scratch")
    verdict = row.verdict(*ARMS)
    print(f"difference {row.difference.format('+.3f')}, p {row.p:.3g}: {verdict}")
    print(
        f"The interval is over {row.patients} held-out patients. It does not cover the choice of the labelled scans or"
        " of the seed, each of which was tried once; medssl fewshot repeats both."
    )
    if not verdict.startswith("pretrained"):
        print("Pretraining did not show a gain on these scans at this length.")
    print(_describe_nodules(out / "predictions" / "nodules" / "evaluation"))
    print(f"\nscans and labels      {out}/scans\nprepared store        {out}/store\nruns and previews     {out}/runs")
    print(
        f"predictions           {out}/predictions\n\nnow look at them: medssl review {out}/predictions/nodules --demo"
    )


def _describe_nodules(evaluation: Path) -> str:
    """Returns how many of the nodules of the held-out scans were found."""
    scores = json.loads((evaluation / "summary.json").read_text())["lesions"]["nodule"]
    sensitivity = scores["sensitivity"]["1"]
    if sensitivity["estimate"] is None:
        return "nodules: the held-out scans have none"
    low, estimate, high = (sensitivity[key] for key in ("low", "estimate", "high"))
    return (
        f"nodules, without pretraining: {estimate:.2f} [{low:.2f}, {high:.2f}] of {scores['lesions']} found"
        f" at 1 false positive per scan in {scores['cases']} held-out scans"
    )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="a folder that does not exist (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the synthetic patients")
    parser.add_argument(
        "--quick", action="store_true", help="train for a few steps only: shows that the path runs, not that it learns"
    )
    return parser

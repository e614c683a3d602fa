"""Runs the whole path on synthetic scans: medssl demo --out demo"""

import argparse
import json
import sys
from pathlib import Path

from medssl import cli
from medssl.errors import BadInput

LABELS = 4

ARMS = ("pretrained", "scratch")


def main(words: list[str]) -> None:
    """Makes scans, ingests, pretrains, finetunes with and without pretraining, predicts, and compares both."""
    args = build_parser().parse_args(words)
    from medssl.data.phantoms import datasets

    out: Path = args.out
    if out.exists():
        raise BadInput(f"{out}: exists already; remove it or choose another --out")
    print(f"The demo takes about {'one minute' if args.quick else '8 minutes'} on two CPU cores.")
    short = ["train.epochs=1", "train.steps_per_epoch=3"] if args.quick else []
    size = (8, 4, (48, 48, 48), 6.0) if args.quick else (24, 16, (72, 72, 72), 4.0)
    datasets.write_demo_folder(out / "scans", args.seed, *size)
    _run_command("ingest", f"{out}/scans", "--out", f"{out}/store", "--split-fractions", "train=0.6,val=0.1,test=0.3")
    manifest, encoder = f"{out}/store/manifest.csv", f"{out}/runs/encoder"
    _run_command("pretrain", "configs/demo/pretrain.yaml", f"manifest={manifest}", f"run={encoder}", *short)
    for arm in ARMS:
        start = f"pretrained={encoder if arm == 'pretrained' else 'null'}"
        options = (f"manifest={manifest}", start, f"run={out}/runs/{arm}", f"num_labelled={LABELS}")
        _run_command("finetune", "configs/demo/finetune.yaml", *options, *short)
        _run_command("predict", f"{out}/runs/{arm}", manifest, "--out", f"{out}/predictions/{arm}")
        _run_command("evaluate", f"{out}/predictions/{arm}", "--labels", manifest, "--lesions", "nodule")
    _print_summary(out)


def _run_command(name: str, *words: str) -> None:
    print(f"\n$ medssl {name} {' '.join(words)}", flush=True)
    code = cli.run(name, list(words))
    if code:
        sys.exit(code)


def _print_summary(out: Path) -> None:
    """Prints both arms' Dice and lesion sensitivity, the verdict, and where everything is."""
    from medssl.evaluation.compare import ALL, compare

    folders = [out / "predictions" / arm / "evaluation" for arm in ARMS]
    _run_command("compare", *map(str, folders), "--names", *ARMS)
    for arm, folder in zip(ARMS, folders, strict=True):
        nodules = json.loads((folder / "summary.json").read_text())["lesions"]["nodule"]
        sensitivity = nodules["sensitivity"]["1"]["estimate"]
        text = (
            "no nodule to find"
            if sensitivity is None
            else f"sensitivity {sensitivity:.2f} at 1 false positive per scan"
        )
        print(f"{arm}: {nodules['lesions']} nodules, {text}")
    row = next(r for r in compare(folders[0], folders[1]) if r.label == ALL)
    print(f"\nmean Dice, {LABELS} labelled scans: {row.first:.3f} pretrained, {row.second:.3f} scratch")
    verdict = row.verdict(*ARMS)
    print(f"difference {row.difference.format('+.3f')}, p {row.p:.3g}: {verdict}")
    print(
        f"The interval is over {row.patients} held-out patients. It does not cover the choice of the labelled scans or"
        " of the seed, each of which was tried once; medssl fewshot repeats both."
    )
    if not verdict.startswith("pretrained"):
        print("Pretraining did not show a gain on these scans at this length.")
    print(f"\nscans and labels      {out}/scans\nprepared store        {out}/store\nruns and previews     {out}/runs")
    print(f"predictions           {out}/predictions\n\nnow look at them: medssl review {out}/predictions/pretrained")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="a folder that does not exist (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the synthetic patients")
    parser.add_argument(
        "--quick", action="store_true", help="train for a few steps only: shows that the path runs, not that it learns"
    )
    return parser

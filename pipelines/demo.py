"""Runs the whole path on scans drawn by the program: medssl demo --out demo"""

import argparse
import json
import sys
from pathlib import Path

from medssl import cli
from medssl.data.phantoms import datasets as phantom
from medssl.errors import BadInput
from medssl.evaluation.compare import ALL, compare

LABELS = 4
ARMS = ("pretrained", "scratch")


def main(words: list[str]) -> None:
    """Draws scans, ingests, pretrains, finetunes with and without it, predicts, and says which was better."""
    parser = argparse.ArgumentParser(prog="medssl demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="a folder that does not exist (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other patients")
    parser.add_argument("--quick", action="store_true", help="a few steps only: shows that it runs, not that it learns")
    given = parser.parse_args(words)
    out: Path = given.out
    if out.exists():
        raise BadInput(f"{out}: exists already; remove it or choose another --out")
    short = ["plan.epochs=1", "plan.steps=3"] if given.quick else []
    phantom.demo_folder(out / "scans", given.seed, *((8, 4) if given.quick else (24, 16)), (72, 72, 72), 4.0)
    _medssl("ingest", f"{out}/scans", "--out", f"{out}/store", "--shares", "train=0.6,val=0.1,test=0.3")
    manifest, encoder = f"{out}/store/manifest.csv", f"{out}/runs/encoder"
    _medssl("pretrain", "configs/demo/pretrain.yaml", f"manifest={manifest}", f"run={encoder}", *short)
    for arm in ARMS:
        start = f"pretrained={encoder if arm == 'pretrained' else 'null'}"
        how = (f"manifest={manifest}", start, f"run={out}/runs/{arm}", f"labels={LABELS}")
        _medssl("finetune", "configs/demo/finetune.yaml", *how, *short)
        _medssl("predict", f"{out}/runs/{arm}", manifest, "--out", f"{out}/predictions/{arm}")
        _medssl("evaluate", f"{out}/predictions/{arm}", "--labels", manifest, "--lesions", "nodule")
    _conclude(out)


def _medssl(name: str, *words: str) -> None:
    print(f"\n$ medssl {name} {' '.join(words)}", flush=True)
    code = cli.run(name, list(words))
    if code:
        sys.exit(code)


def _conclude(out: Path) -> None:
    """Both arms' Dice and lesion sensitivity, what may be said of them, and where everything is."""
    folders = [out / "predictions" / arm / "evaluation" for arm in ARMS]
    _medssl("compare", *map(str, folders), "--names", *ARMS)
    for arm, folder in zip(ARMS, folders, strict=True):
        nodules = json.loads((folder / "summary.json").read_text())["lesions"]["nodule"]
        found = nodules["sensitivity"]["1"]["estimate"]
        said = "no nodule to find" if found is None else f"sensitivity {found:.2f} at 1 false positive a scan"
        print(f"{arm}: {nodules['lesions']} nodules, {said}")
    row = next(r for r in compare(folders[0], folders[1]) if r.label == ALL)
    print(f"\nmean Dice, {LABELS} labelled scans: {row.first:.3f} pretrained, {row.second:.3f} scratch")
    verdict = row.verdict(*ARMS)
    print(f"difference {row.gap.said('+.3f')}, p {row.p:.3g}: {verdict}")
    if not verdict.startswith("pretrained"):
        print("Pretraining did not show a gain on these scans at this length.")
    print(f"\nscans and their truth {out}/scans\nprepared store        {out}/store\nruns and previews     {out}/runs")
    print(f"predictions           {out}/predictions\n\nnow look at them: medssl review {out}/predictions/pretrained")

"""Real MR, 8 labels: hippocampus parts with and without SparK on the unlabelled volumes, tested on other patients.

usage: python -m benchmarks.hippocampus [DATA] [WORK]; what lies in WORK already is not done again.
"""

import json
import os
import sys
from pathlib import Path

from benchmarks._commands import make
from medssl.evaluation.compare import compare

DATA, WORK = "../shared/data/hippocampus", "runs/hippocampus"


def main(data: str = DATA, work: str = WORK) -> None:
    """Runs the commands it prints, then prints both arms and their paired difference."""
    steps = [
        ("store", f"ingest {data} --out {work}/store --split-fractions train=0.7,val=0.1,test=0.2"),
        ("spark", f"pretrain configs/pretrain/hippocampus.yaml manifest={work}/store/manifest.csv run={work}/spark"),
    ]
    for arm, start in (("scratch", "null"), ("pretrained", f"{work}/spark")):
        how = f"manifest={work}/store/manifest.csv pretrained={start} run={work}/{arm}"
        steps += [
            (arm, f"finetune configs/finetune/hippocampus.yaml {how}"),
            (f"predicted/{arm}", f"predict {work}/{arm} {work}/store/manifest.csv --out {work}/predicted/{arm}"),
            (f"predicted/{arm}/evaluation", f"evaluate {work}/predicted/{arm} --labels {work}/store/manifest.csv"),
        ]
    for path, words in steps:
        make(Path(work, path), words)
    print("\n".join(["```sh", *(f"medssl {words}" for _, words in steps), "```\n"]))
    _table(Path(work))


def _table(work: Path) -> None:
    folders = [work / "predicted" / arm / "evaluation" for arm in ("pretrained", "scratch")]
    print("| structure | Dice pretrained | Dice scratch | difference [95 % over patients] | p |\n|---|---|---|---|---|")
    for row in compare(*folders):
        print(f"| {row.label} | {row.first:.3f} | {row.second:.3f} | {row.difference.format('+.3f')} | {row.p:.3f} |")
    cases = json.loads((folders[0] / "summary.json").read_text())["cases"]
    print(f"\nOver {cases} test cases: {row.verdict('pretrained', 'scratch')}.")
    _provenance(work)


def _provenance(work: Path) -> None:
    """What each run cost and which code trained it: arms trained by different code are not one experiment."""
    cards = {name: json.loads((work / name / "run.json").read_text()) for name in ("spark", "scratch", "pretrained")}
    print(f"\n| run | minutes on {os.cpu_count()} cores | GB | commit |\n|---|---|---|---|")
    for name, card in cards.items():
        code = card["git"] or {"commit": "unknown", "changed": False}
        commit = code["commit"][:12] + (" with changes" if code["changed"] else "")
        usage = card["resource_usage"]
        print(f"| {name} | {usage['seconds'] / 60:.0f} | {usage['peak_memory_gb']} | {commit} |")
    if len({(card["git"] or {}).get("commit") for card in cards.values()}) > 1 or any(
        (card["git"] or {}).get("changed") for card in cards.values()
    ):
        print("\nThese runs were not all trained by one committed state of the code: remove WORK and run this again.")


if __name__ == "__main__":
    main(*sys.argv[1:])

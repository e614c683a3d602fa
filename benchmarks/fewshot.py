"""Few labels on real MR: hippocampus parts from 1 to all labelled volumes, with and without pretraining, by seeds.

usage: python -m benchmarks.fewshot [CONFIG] [DATA] [WORK]; what lies in WORK already is not done again.
"""

import csv
import json
import sys
from pathlib import Path

from benchmarks._commands import make, run

CONFIG, DATA, WORK = "configs/fewshot/hippocampus.yaml", "../shared/data/hippocampus", "runs/fewshot"


def main(config: str = CONFIG, data: str = DATA, work: str = WORK) -> None:
    """Runs the commands it prints, then prints the table of the sweep and what its runs were made of."""
    manifest, out = Path(work, "store", "manifest.csv"), Path(work, Path(config).stem)
    ingest = f"ingest {data} --out {work}/store --shares train=0.7,val=0.1,test=0.2"
    sweep = f"fewshot {config} manifest={manifest} out={out}"
    print(f"```sh\nmedssl {ingest}\nmedssl {sweep}\n```\n")
    make(manifest, ingest)
    run(sweep)
    _table(out)
    _provenance(out)


def _table(out: Path) -> None:
    with (out / "table.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = ("labels", "arm", "Dice [95 %]", "difference from scratch [95 %]", "p", "seeds", "cases")
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    overall = [row for row in rows if row["structure"] == rows[0]["structure"]]
    for row in sorted(overall, key=lambda row: int(row["labels"])):
        dice, gap = (_interval(row, name, style) for name, style in (("dice", ".3f"), ("difference", "+.3f")))
        print(f"| {row['labels']} | {row['arm']} | {dice} | {gap} | {row['p']} | {row['seeds']} | {row['cases']} |")


def _interval(row: dict[str, str], name: str, style: str) -> str:
    told = [format(float(row[key]), style) for key in (name, f"{name}_low", f"{name}_high") if row[key]]
    return "{} [{}, {}]".format(*told) if told else ""


def _provenance(out: Path) -> None:
    """How long it all took, and which code trained it: cells trained by different code are not one experiment."""
    cards = [json.loads(path.read_text()) for path in out.rglob("run.json")]
    hours = sum(card["spent"]["seconds"] for card in cards if "spent" in card) / 3600
    code = {f"{git['commit'][:12]}{' with changes' * git['changed']}" for card in cards if (git := card["git"])}
    print(f"\n{len(cards)} runs, {hours:.1f} hours of training in all, by commit {', '.join(sorted(code))}.")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Few labels on real MR and CT, from 1 to all labelled volumes, with and without pretraining, by seeds.

usage: python -m benchmarks.fewshot [WORK] [SWEEP ...]; what lies in WORK already is not done again.
"""

import csv
import json
import sys
from pathlib import Path

from benchmarks._commands import make, run

SETS = {  # the data set, and how its volumes are shared out and resampled
    "hippocampus": ("hippocampus", "--split-fractions train=0.7,val=0.1,test=0.2"),
    "headneck": ("headneck_ct", "--split-fractions train=0.7,val=0.1,test=0.2 --spacing 4,4,4"),
    "sarcoma": ("sarcoma", "--split-fractions train=0.6,test=0.4 --spacing 2,2,3.27"),
}
SWEEPS = {  # the set; sweeps of one set have one recipe and share a folder
    "hippocampus": "hippocampus",
    "seeds": "hippocampus",
    "parcels": "hippocampus",
    "one": "hippocampus",
    "propagated": "hippocampus",
    "unlabelled": "hippocampus",
    "shift": "hippocampus",
    "slices": "hippocampus",
    "headneck": "headneck",
    "sarcoma": "sarcoma",
}
ATLAS = ("hippocampus-atlas/manifest.csv", "atlas {store}/manifest.csv --out {work}/hippocampus-atlas")
PARCELS = (
    "parcels/weights.safetensors",
    "finetune configs/finetune/parcels.yaml encoder.channels=[8,16,32,64] "
    "manifest={work}/hippocampus-atlas/manifest.csv run={work}/parcels",
)
NEEDED = {  # sweeps that need more made than the store: the file that is there then, and the command
    "parcels": (ATLAS, PARCELS),
    "one": (ATLAS, PARCELS),
    "propagated": (ATLAS,),
}
OWN = {
    **dict.fromkeys(NEEDED, "aligned"),
    "shift": "shift",
    "slices": "slices",
}  # these have a recipe, and so a folder, of their own


def main(work: str = "runs/fewshot", *names: str) -> None:
    """Runs the commands it prints; then prints the table of each sweep and what its runs were made of."""
    for name in names or SWEEPS:
        data_set = SWEEPS[name]
        (data, how), store, out = SETS[data_set], Path(work, f"{data_set}-store"), Path(work, OWN.get(name, data_set))
        ingest = f"ingest ../shared/data/{data} --out {store} {how}"
        needed = [(Path(work, path), words.format(store=store, work=work)) for path, words in NEEDED.get(name, ())]
        needed = [(store / "manifest.csv", ingest), *needed]
        sweep = f"fewshot configs/fewshot/{name}.yaml manifest={store}/manifest.csv out={out}"
        for path, words in needed:
            make(path, words)
        run(sweep)
        commands = "\n".join(f"medssl {words}" for words in (*(words for _, words in needed), sweep))
        print(f"\n### {name}\n\n```sh\n{commands}\n```\n")
        _table(out)
        provenance(out)


def _table(out: Path) -> None:
    with (out / "table.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = ("labels", "arm", f"{rows[0]['metric']} [95 %]", "difference from scratch [95 %]", "p", "seeds", "cases")
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    overall = [row for row in rows if all(row[key] == rows[0][key] for key in ("structure", "metric"))]
    for row in sorted(overall, key=lambda row: int(row["labels"])):
        dice, gap = (_interval(row, name, style) for name, style in (("score", ".3f"), ("difference", "+.3f")))
        print(f"| {row['labels']} | {row['arm']} | {dice} | {gap} | {row['p']} | {row['seeds']} | {row['cases']} |")
    _print_structures(rows)


def _print_structures(rows: list[dict[str, str]]) -> None:
    """Dice of each structure, and which are better or worse than scratch."""
    dice = [row for row in rows if row["metric"] == "Dice"]
    names = list(dict.fromkeys(row["structure"] for row in dice))[1:]
    if len(names) < 2:
        return
    print(f"\n| labels | arm | {' | '.join(names)} |\n{'|---' * (len(names) + 2)}|")
    row_by_key = {(int(row["labels"]), row["arm"], row["structure"]): row for row in dice}
    for labels, arm in sorted(dict.fromkeys(key[:2] for key in row_by_key), key=lambda key: key[0]):
        cells = [
            _mark_difference(row_by_key[labels, arm, name]) if (labels, arm, name) in row_by_key else ""
            for name in names
        ]
        print(f"| {labels} | {arm} | {' | '.join(cells)} |")
    print("\nDice by structure; + or -: above or below scratch, where the 95 % interval of the difference excludes 0.")


def _mark_difference(row: dict[str, str]) -> str:
    score = f"{float(row['score']):.3f}"
    if not row["difference"]:
        return score
    low, high = float(row["difference_low"]), float(row["difference_high"])
    return f"{score} {'+' if low > 0 else '-' if high < 0 else ''}".strip()


def _interval(row: dict[str, str], name: str, style: str) -> str:
    values = [format(float(row[key]), style) for key in (name, f"{name}_low", f"{name}_high") if row[key]]
    return "{} [{}, {}]".format(*values) if values else ""


def provenance(out: Path) -> None:
    """How long it all took, and which code trained it: cells trained by different code are not one experiment."""
    cards = [json.loads(path.read_text()) for path in out.rglob("run.json")]
    hours = sum(card["resource_usage"]["seconds"] for card in cards if "resource_usage" in card) / 3600
    code = {f"{git['commit'][:12]}{' with changes' * git['changed']}" for card in cards if (git := card["git"])}
    print(f"\n{len(cards)} runs, {hours:.1f} hours of training in all, by commit {', '.join(sorted(code))}.")


if __name__ == "__main__":
    main(*sys.argv[1:])

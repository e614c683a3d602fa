"""Real nodules in real lungs: how many are found by voxels, boxes and both, from 10 and 80 volumes, pretrained or not.

usage: python -m benchmarks.nodules [DATA] [WORK] [ARM ...]; what lies in WORK already is not done again, and arms that
are neither named nor done are left out of the table.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._commands import make

DATA, WORK = "../shared/data/nodules", "runs/nodules"
ARMS = {
    f"{route}-{labels}{'-spark' if spark else ''}": (route, labels, spark)
    for labels in (80, 10)
    for route in ("voxel", "box", "both")
    for spark in (False, True)
}


def main(data: str = DATA, work: str = WORK, *names: str) -> None:
    """Runs the commands it prints, then prints every arm that is done."""
    if unknown := set(names) - set(ARMS):
        sys.exit(f"no such arm: {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    _patients(Path(data), Path(work, "patients.csv"))
    store, spark = f"{work}/store", f"{work}/spark"
    steps = [(store, f"ingest {data} --patients {work}/patients.csv --out {store}")]
    if any(ARMS[name][2] for name in names or ARMS):
        steps.append((spark, f"pretrain configs/pretrain/nodules.yaml manifest={store}/manifest.csv run={spark}"))
    for name in names or ARMS:
        steps += _arm(name, store, spark, work)
    for made, words in steps:
        make(Path(made), words)
    print("\n".join(["```sh", *(f"medssl {words}" for _, words in steps), "```\n"]))
    _table(Path(work))


def _arm(name: str, store: str, spark: str, work: str) -> list[tuple[str, str]]:
    """What each command of an arm leaves, and the command: the last weights, so that nothing is chosen by a score."""
    route, labels, pretrained = ARMS[name]
    run, said = f"{work}/{name}", f"{work}/predicted/{name}"
    start = f"pretrained={spark} schedule=sawtooth" if pretrained else "pretrained=null"
    how = f"labels={labels} task.route={route} {start}"
    return [
        (run, f"finetune configs/finetune/nodules.yaml manifest={store}/manifest.csv {how} run={run}"),
        (said, f"predict {run} {store}/manifest.csv --split val --out {said}"),
        (f"{said}/evaluation", f"evaluate {said} --labels {store}/manifest.csv --lesions nodule"),
    ]


def _patients(data: Path, table: Path) -> None:
    """Every volume counts as a patient: four scans lie behind them all, and the set's own split keeps these apart."""
    names = [path.name.partition(".")[0] for path in sorted((data / "images").iterdir())]
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("case,patient\n" + "".join(f"{name},{name}\n" for name in names))


def _table(work: Path) -> None:
    done = [name for name in ARMS if (work / "predicted" / name / "evaluation").exists()]
    told = {name: json.loads((work / "predicted" / name / "evaluation" / "summary.json").read_text()) for name in done}
    print("| arm | volumes | start | sensitivity at 1 false alarm a volume | CPM | AP | minutes | commit |")
    print("|---|---|---|---|---|---|---|---|")
    for name in done:
        route, labels, spark = ARMS[name]
        scores = told[name]["lesions"]["nodule"]
        three = (scores["sensitivity"]["1"], scores["cpm"], scores["average_precision"])
        row = (route, labels, "spark" if spark else "scratch", *map(_interval, three), *_cost(work / name))
        print(f"| {' | '.join(map(str, row))} |")
    if left := [name for name in ARMS if name not in done]:
        print(f"\nNot run yet: {', '.join(left)}.")
    first = told[done[0]]
    count = f"{first['cases']} volumes with {first['lesions']['nodule']['lesions']} nodules"
    print(f"\n{count}, of a scan that no training volume is of; 95 % intervals over volumes, which")
    print("overlap: narrower than over patients. A hit overlaps by 0.1; for the CPM, its centre lies in the nodule.")


def _interval(of: dict[str, float]) -> str:
    return f"{of['estimate']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"


def _cost(run: Path) -> tuple[str, str]:
    card: dict[str, Any] = json.loads((run / "run.json").read_text())
    code = card["git"] or {"commit": "unknown", "changed": False}
    return f"{card['spent']['seconds'] / 60:.0f}", code["commit"][:12] + (" with changes" if code["changed"] else "")


if __name__ == "__main__":
    main(*sys.argv[1:])

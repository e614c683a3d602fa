"""Real nodules in real lungs: how many are found by voxels, boxes and both, from 10 and 80 volumes, pretrained or not.

usage: python -m benchmarks.nodules [DATA] [WORK] [ARM ...]; what lies in WORK already is not done again, and arms that
are neither named nor done are left out of the table.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._commands import make
from medssl.data.ingest.reference_labels import References
from medssl.evaluation.evaluate import match_lesions, parse_lesion_labels
from medssl.fewshot.lesion_scores import METRICS, RULES, LesionScores, compare_arms
from medssl.io import nifti
from medssl.predictions_folder import LABELS, read_findings, read_index

DATA, WORK = "../shared/data/nodules", "runs/nodules"
ARMS = {
    f"{route}-{labels}{'-spark' if spark else ''}": (route, labels, spark)
    for labels in (80, 10)
    for route in ("voxel", "box", "both")
    for spark in (False, True)
}
RATES = {"1/8": "0.125", "1/4": "0.25", "1/2": "0.5", "1": "1", "2": "2", "4": "4", "8": "8"}  # as evaluate names them


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
    for path, words in steps:
        make(Path(path), words)
    print("\n".join(["```sh", *(f"medssl {words}" for _, words in steps), "```\n"]))
    _print_table(Path(work))


def _arm(name: str, store: str, spark: str, work: str) -> list[tuple[str, str]]:
    """What each command of an arm leaves, and the command: the last weights, so that nothing is chosen by a score."""
    route, labels, pretrained = ARMS[name]
    run, predicted = f"{work}/{name}", f"{work}/predicted/{name}"
    start = f"pretrained={spark} schedule=sawtooth" if pretrained else "pretrained=null"
    how = f"num_labelled={labels} task.head={route} {start}"
    return [
        (run, f"finetune configs/finetune/nodules.yaml manifest={store}/manifest.csv {how} run={run}"),
        (predicted, f"predict {run} {store}/manifest.csv --split val --out {predicted}"),
        (f"{predicted}/evaluation", f"evaluate {predicted} --labels {store}/manifest.csv --lesions nodule"),
    ]


def _patients(data: Path, table: Path) -> None:
    """Every volume counts as a patient: four scans lie behind them all, and the set's own split keeps these apart."""
    names = [path.name.partition(".")[0] for path in sorted((data / "images").iterdir())]
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("case,patient\n" + "".join(f"{name},{name}\n" for name in names))


def _print_table(work: Path) -> None:
    finished = [name for name in ARMS if (work / "predicted" / name / "evaluation").exists()]
    summaries = {
        name: json.loads((work / "predicted" / name / "evaluation" / "summary.json").read_text()) for name in finished
    }
    lesions = {name: summaries[name]["lesions"]["nodule"] for name in finished}
    print("| arm | volumes | start | sensitivity at 1 false alarm a volume | CPM | AP | minutes | commit |")
    print("|---|---|---|---|---|---|---|---|")
    for name, scores in lesions.items():
        three = (scores["sensitivity"]["1"], scores["cpm"], scores["average_precision"])
        print(f"| {' | '.join((*_describe_arm(name), *map(_interval, three), *_cost(work / name)))} |")
    if missing := [name for name in ARMS if name not in finished]:
        print(f"\nNot run yet: {', '.join(missing)}.")
    first = lesions[finished[0]]
    count = f"{first['cases']} volumes with {first['lesions']} nodules"
    print(f"\n{count}, of a scan that no training volume is of; 95 % intervals over volumes, which")
    print("overlap: narrower than over patients. A hit overlaps by 0.1; for the CPM, its centre lies in the nodule.")
    _print_curves(lesions)
    _print_gaps(work, finished)


def _print_curves(lesions: dict[str, dict[str, Any]]) -> None:
    """The FROC of each run at the rates of the CPM, and how well it separates volumes with and without nodules."""
    print("\nSensitivity [95 %] at false positives per volume, and the AUROC of volumes by their highest score:\n")
    print(f"| arm | volumes | start | {' | '.join(RATES)} | AUROC |\n{'|---' * (len(RATES) + 4)}|")
    for name, scores in lesions.items():
        points = (*(scores["sensitivity"][rate] for rate in RATES.values()), scores["auroc"])
        print(f"| {' | '.join((*_describe_arm(name), *map(_interval, points)))} |")
    first = next(iter(lesions.values()))
    ill = first["patients_with_lesions"]
    print(f"\nThe AUROC is of {ill} volumes with nodules and {first['patients'] - ill} without.")


def _print_gaps(work: Path, finished: list[str]) -> None:
    """The effect of pretraining on each arm, paired by volume."""
    pairs = [(f"{name}-spark", name) for name in finished if f"{name}-spark" in finished]
    if not pairs:
        return
    print("\nSpark less scratch, paired by volume [95 %], and the p of swapping the two:\n")
    print(f"| arm | volumes | {' | '.join(f'{name} | p' for name in METRICS)} |\n{'|---' * (2 + 2 * len(METRICS))}|")
    for pair in pairs:
        spark, scratch = ([match_run(work, name)] for name in pair)
        comparisons = [compare_arms(metric, spark, scratch) for metric in METRICS]
        both = [word for difference, p in comparisons for word in (difference.format("+.2f"), f"{p:.3f}")]
        print(f"| {' | '.join((*_describe_arm(pair[1])[:2], *both))} |")


def match_run(work: Path, name: str) -> LesionScores:
    """What a run found in each volume, matched as evaluate matches it."""
    index, references = read_index(work / "predicted" / name), References.read(work / "store" / "manifest.csv")
    (kind,) = parse_lesion_labels(index.labels, "nodule", index.folder)
    detections = []
    for case in index.cases:
        predicted = nifti.read(index.case_folder(case) / LABELS, label=True)
        label, findings = references.read_label(case, predicted), read_findings(index.case_folder(case))
        detections.append(match_lesions(case, references.sources[case].patient, kind, predicted, label, findings))
    cases, patients = (
        tuple(detection.case for detection in detections),
        tuple(detection.patient for detection in detections),
    )
    return LesionScores(
        cases, patients, {rule: tuple(getattr(detection, rule) for detection in detections) for rule in RULES}
    )


def _describe_arm(name: str) -> tuple[str, str, str]:
    route, labels, spark = ARMS[name]
    return route, str(labels), "spark" if spark else "scratch"


def _interval(score: dict[str, float]) -> str:
    return f"{score['estimate']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def _cost(run: Path) -> tuple[str, str]:
    card: dict[str, Any] = json.loads((run / "run.json").read_text())
    code = card["git"] or {"commit": "unknown", "changed": False}
    return f"{card['resource_usage']['seconds'] / 60:.0f}", code["commit"][:12] + (
        " with changes" if code["changed"] else ""
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

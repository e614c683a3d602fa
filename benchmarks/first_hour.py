"""Mistakes of a first hour and what medssl answers to them, and the way from raw files to a reviewed model, timed.

usage: python -m benchmarks.first_hour [DATA]; DATA is a folder with the data sets hippocampus, sarcoma, headneck_ct and
dicom.
"""

import contextlib
import csv
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._commands import measure
from benchmarks._first_mistakes import answer, make_inputs
from medssl.predictions_folder import read_findings, read_index
from medssl.review.event import Act
from medssl.review.event_store import EventStore, get_default_database

DATA = "../shared/data"
LABELLED, SCANS, HOURS = 20, 200, 0.1
BEFORE = {
    "ingest raw": "0.6; all 20 labels refused, exit 0",
    "plan": "there was none",
    "pretrain": "stopped at 11 without one line; crops larger than the scans",
    "finetune": "1.5, after a dataset.json by hand and the encoder's settings repeated",
    "predict": "1.3",
    "evaluate": "1.1",
}
STOPPED = 75  # the exit code of a training that reached its hours; the same command goes on
OTHERS = ("sarcoma", "headneck_ct", "dicom")
SHORT = "train.epochs=1 train.steps_per_epoch=2 train.num_workers=0"
BEFORE_OTHERS = {
    ("sarcoma", "ingest"): "20 s",
    ("sarcoma", "pretrain"): "60 s for one step",
    ("headneck_ct", "ingest"): "32 s",
    ("dicom", "ingest"): "60 s",
    ("dicom", "plan"): "there was none: one grid for heads, trunks and slabs of one voxel, without a word",
}


def main(data: str = DATA) -> None:
    """Prints the tables; ends with an error if an answer is not the one that is listed."""
    source = Path(data).absolute()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        wrong = []
        print("| mistake | command | at commit 725138b | now | exit code |\n|---|---|---|---|---|")
        with make_inputs() as mistakes:
            for mistake in mistakes:
                code, lines = answer(mistake.words)
                answers = [line for line in lines if mistake.answer in line]
                wrong += [] if answers and code == mistake.exit_code else [f"{mistake.name}: {code}, {lines[-1:]}"]
                text = answers[0].replace(name, "").replace("|", "\\|") if answers else ""
                print(f"| {mistake.name} | `medssl {mistake.words}` | {mistake.before} | {text.strip()} | {code} |")
        if wrong:
            sys.exit("\n".join(wrong))
        walk(source / "hippocampus")
        print("\n| folder | command | minutes | CPU s without workers | peak GB | at commit 725138b | warnings now |")
        print("|---|---|---|---|---|---|---|")
        for folder in OTHERS:
            try_folder(source / folder)


def walk(source: Path) -> None:
    """Prints the time of each step from raw images and labels to a second training set, by commands of the README."""
    _copy_raw(source, Path("raw"))
    steps = _run(f"run raw --out project --hours {HOURS}")
    predictions = Path("project", "predictions", "scratch")
    began = time.monotonic()
    _sign_all(predictions)
    steps.append(("every finding accepted, every case signed", time.monotonic() - began))
    steps += _run(f"feedback {predictions} --out corrected") + _run("ingest corrected --out store2")
    print(f"\n{SCANS} raw MR volumes in `images/`, {LABELLED} masks in `labels/`, and cases.csv with their patients:\n")
    print("| step | minutes | at commit 725138b |\n|---|---|---|")
    for name, seconds in steps:
        print(f"| {name} | {seconds / 60:.1f} | {find_before(name)} |")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = f"{sum(seconds for _, seconds in steps) / 60:.1f}, of which the processor worked"
    print(f"| all | {total} {(usage.ru_utime + usage.ru_stime) / 60:.1f} | |")
    labels = json.loads((predictions / "evaluation" / "summary.json").read_text())["labels"]
    dice = ", ".join(f"{name} {scores['dice']['mean']:.2f}" for name, scores in labels.items())
    print(f"\nDice of the model from scratch on the held-out patients: {dice}; all trainings together had {HOURS:g} h.")


def try_folder(scans: Path) -> None:
    """Prints what ingesting a folder as it is, planning and two steps of pretraining take, and their warnings."""
    name = scans.name
    commands = (
        f"ingest {scans} --out {name}",
        f"plan {name} --for pretrain --hours 0.5 --out {name}.yaml",
        f"pretrain {name}.yaml run=runs/{name} {SHORT}",
    )
    for words in commands:
        cost = measure(words)
        command = words.partition(" ")[0]
        before = BEFORE_OTHERS.get((name, command), "")
        figures = f"{cost.wall_s / 60:.1f} | {cost.cpu_s:.0f} | {cost.peak_bytes / 1e9:.1f}"
        print(f"| {name} | {command} | {figures} | {before} | {'; '.join(cost.warnings)} |", flush=True)


def find_before(step: str) -> str:
    """Returns what the step took in the first version, or what became of it; empty if it was not tried."""
    return next((text for words, text in BEFORE.items() if step.startswith(f"medssl {words}")), "")


def _copy_raw(source: Path, out: Path) -> None:
    for number, image in enumerate(sorted((source / "imagesTr").iterdir())[:SCANS]):
        for folder, path in [
            ("images", image),
            *([("labels", source / "labelsTr" / image.name)] * (number < LABELLED)),
        ]:
            (out / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / folder)
    with (source / "cases.csv").open(newline="") as file:
        rows = [f"{row['case']},{row['patient_group']}" for row in csv.DictReader(file)]
    (out / "cases.csv").write_text("\n".join(["case,patient", *rows]) + "\n")


def _run(words: str) -> list[tuple[str, float]]:
    """Runs a command, again while it stops at a limit, and returns the seconds of each command that it announces."""
    names, marks, last = [f"medssl {words}"], [time.monotonic()], ""
    command, code = [sys.executable, "-m", "medssl.cli", *words.split()], STOPPED
    while code == STOPPED:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout or ():
                last = line.strip() or last
                if line.startswith("$ medssl"):
                    names.append(" ".join(last.removeprefix("$ ").split()[:3]))
                    marks.append(time.monotonic())
        code = process.returncode
    marks.append(time.monotonic())
    if code:
        sys.exit(f"medssl {words}: {last}")
    steps = [(name, end - begin) for name, begin, end in zip(names, marks, marks[1:], strict=False)]
    return steps if len(steps) == 1 else steps[1:]


def _sign_all(predictions: Path) -> None:
    """Accepts every finding and signs every case, as a reader does in the review app."""
    index = read_index(predictions)
    store = EventStore(get_default_database(index.folder))
    for case in index.cases:
        findings = [finding.id for finding in read_findings(index.case_folder(case))]
        for number, finding in enumerate([*findings, ""]):
            action = "accept" if finding else "sign"
            act = {"session": case, "number": number, "case": case, "finding": finding, "action": action}
            store.record(Act(reviewer="reader", role="senior", **act))


if __name__ == "__main__":
    main(*sys.argv[1:])

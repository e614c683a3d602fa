"""Ingestion of the inputs that were once refused or read wrongly: what became of each, and what is right.

`python -m benchmarks.ingest_cases [GENERATORS]` runs the scripts of the folder GENERATORS, which make the inputs, and
ingests each input as its script asks for.
"""

import contextlib
import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._ingest_outcomes import EXTRA_OPTIONS, OUTCOMES, Outcome
from medssl import cli
from medssl.data import store
from medssl.data.store_metadata import StoreMetadata

GENERATORS = Path(__file__).parents[2] / "shared" / "cases" / "ingest"
# Stands in for the command that the scripts call: keeps a copy of the input and the options.
RECORDER = """#!/bin/sh
n=$(printf %04d $(ls "$CALLS" | wc -l)); mkdir "$CALLS/$n"
cp -a "$2" "$CALLS/$n/in"; basename "$(dirname "$2")" > "$CALLS/$n/name"
[ -d "$4" ] && touch "$CALLS/$n/keep"
mkdir -p "$4"; shift 4; for word; do echo "$word"; done > "$CALLS/$n/options"
"""


@dataclass(frozen=True)
class Call:
    """One ingestion that a script asks for."""

    name: str
    scans: Path
    options: tuple[str, ...]
    keeps_store: bool


def main(words: list[str]) -> None:
    """Prints one row for each input, and how many became what is right."""
    generators = Path(words[0]).absolute() if words else GENERATORS
    if not generators.is_dir():
        sys.exit(f"{generators}: no such folder; give the folder of the scripts that make the inputs")
    rows, num_right = [], 0
    with tempfile.TemporaryDirectory() as name:
        calls = record_calls(generators, Path(name))
        extra = [Call(c.name, c.scans, (*c.options, *o), False) for c in calls for o in EXTRA_OPTIONS.get(c.name, ())]
        for call in [*calls, *extra]:
            key = " ".join([call.name, *(word for word in call.options if word in ("--allow-gaps", "--follow-links"))])
            key += " (again)" if call.keeps_store else ""
            outcome = OUTCOMES.get(key)
            actual, printed = ingest(call, Path(name))
            is_right = outcome is not None and outcome.matches(actual, printed)
            num_right += is_right
            before, right = (outcome.before, outcome.right) if outcome else ("", "")
            rows.append(
                f"| {key} | {before} | {describe(actual, printed)} | {right} | {'yes' if is_right else '**no**'} |"
            )
    print("| input | before, at commit 725138b | now | right | is right |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{num_right} of {len(rows)} inputs become what is right.")


def record_calls(generators: Path, folder: Path) -> list[Call]:
    """Runs the scripts with a stand-in for the command, and returns the arguments it got."""
    calls = folder / "calls"
    calls.mkdir()
    stand_in = folder / "bin" / "medssl"
    stand_in.parent.mkdir()
    stand_in.write_text(RECORDER)
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CASES": str(folder / "cases"), "CALLS": str(calls)}
    for script in sorted(generators.glob("*.py")):
        if script.stem != "base":
            subprocess.run([sys.executable, script.name], cwd=generators, env=environment, capture_output=True)
    return [
        Call(
            (call / "name").read_text().strip(),
            call / "in",
            tuple((call / "options").read_text().split("\n")[:-1]),
            (call / "keep").exists() and (call / "name").read_text().strip() == "rt_grow",
        )
        for call in sorted(calls.iterdir())
    ]


def ingest(call: Call, folder: Path) -> tuple[Outcome, str]:
    """Ingests the input of a call, and returns what became of it and every message about it."""
    scans, out = folder / "run" / call.name / "in", folder / "run" / call.name / "store"
    shutil.rmtree(scans, ignore_errors=True)
    shutil.copytree(call.scans, scans, symlinks=True)
    if not call.keeps_store:
        shutil.rmtree(out, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        code = cli.run("ingest", [str(scans), "--out", str(out), *call.options])
    cases, files = read_table(out / "manifest.csv"), read_table(out / "ledger.csv")
    modalities = "+".join(sorted({case["modality"] for case in cases}))
    actual = Outcome(
        len(cases), sum(bool(case["label"]) for case in cases), len({case["patient"] for case in cases}), modalities,
        max((int(case["channels"]) for case in cases), default=0), code=code,
    )  # fmt: skip
    reasons = " ".join(row["reason"] for row in files) + " ".join(case["warnings"] for case in cases)
    metadata = (out / "store.json").read_text() if (out / "store.json").exists() else ""
    return actual, f"{printed.getvalue()} {reasons} {metadata} {count_voxels(out)}"


def count_voxels(out: Path) -> str:
    """Returns the number of voxels of each class that the labels of a store hold."""
    counts = Counter[str]()
    names = StoreMetadata.read(out).labels if (out / "store.json").exists() else {}
    for path in (out / "labels").glob("*.b2nd"):
        values, numbers = np.unique(store.read(path).array[:], return_counts=True)
        counts.update({names.get(int(v), str(v)): int(n) for v, n in zip(values, numbers, strict=True) if v})
    return " ".join(f"{name}={count}" for name, count in sorted(counts.items()))


def read_table(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a table; none if it is missing."""
    return list(csv.DictReader(path.open(encoding="utf-8", newline=""))) if path.exists() else []


def describe(actual: Outcome, printed: str) -> str:
    """Returns what became of an input in a few words."""
    if not actual.cases:
        message = next((line for line in printed.splitlines() if line.startswith("medssl ingest:")), "no case")
        reason = re.search(r"\((.*)\); give a folder", message)
        return f"refused: {reason[1] if reason else message}"
    counts = Counter({"patients": actual.patients, "labelled": actual.labelled, "channels": actual.channels})
    facts = ", ".join(f"{number} {name}" for name, number in counts.items())
    voxels = re.findall(r"\S+=\d+(?= |$)", printed.rpartition("}")[2])
    return f"{actual.cases} cases of {actual.modality}, {facts}" + f"; voxels {', '.join(voxels)}" * bool(voxels)


if __name__ == "__main__":
    main(sys.argv[1:])

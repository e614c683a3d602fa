"""Stores of real scans made by an early version and by this one: which images and labels are equal byte for byte.

`python -m benchmarks.ingest_changes [DATA]` ingests every set of the folder DATA with both versions; stores that lie in
runs/ingest-changes are not made again.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
EARLY = "725138b"
DATA = ROOT.parent / "shared" / "data"
SETS = ("dicom", "sarcoma", "headneck_ct", "hippocampus", "nodules")
STORES = ROOT / "runs" / "ingest-changes"
RENAMED = {"day": "study_day", "doubts": "warnings"}
NOT_COMPARED = ("sha256", "label_sha256", "warnings")  # the hashes are counted, and warnings are prose


def main(words: list[str]) -> None:
    """Prints one row for each set."""
    data = Path(words[0]).absolute() if words else DATA
    if not data.is_dir():
        sys.exit(f"{data}: no such folder; give the folder of the sets {', '.join(SETS)}")
    print(f"| set | cases at {EARLY} | now | equal images | equal labels | columns of manifest.csv that differ |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        for set_name in SETS:
            before = ingest_set(data / set_name, STORES / f"before-{set_name}", tree)
            now = ingest_set(data / set_name, STORES / f"now-{set_name}", ROOT)
            print(f"| {set_name} | {len(before)} | {len(now)} | {describe_differences(before, now)} |")
        if tree.exists():
            run_git("worktree", "remove", "--force", str(tree))
    print("\nThe split changes because patients are now assigned by the content of their scans, within each site;")
    print("the unit of PET is SUVbw where its tags allow.")


def ingest_set(scans: Path, out: Path, tree: Path) -> dict[str, dict[str, str]]:
    """Ingests a set with the code of a tree, unless it was done before, and returns the manifest by case."""
    if not (out / "manifest.csv").exists():
        if not tree.exists():
            run_git("worktree", "add", "--detach", str(tree), EARLY)
        words = ["ingest", str(scans), "--out", str(out), "--no-deidentify", "--workers", "0"]
        command = [sys.executable, "-m", "medssl.cli", *words]
        process = subprocess.run(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True
        )
        if process.returncode:
            sys.exit(f"medssl {' '.join(words)}: {(process.stderr.strip().splitlines() or ['failed'])[-1]}")
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [{RENAMED.get(name, name): value for name, value in row.items()} for row in csv.DictReader(file)]
    return {row["id"]: row for row in rows}


def describe_differences(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> str:
    """Returns the cells with the numbers of equal images and labels, and of cases by column that differs."""
    common = sorted(before.keys() & now.keys())
    images = sum(before[case]["sha256"] == now[case]["sha256"] for case in common)
    labelled = [case for case in common if before[case]["label"] or now[case]["label"]]
    labels = sum(before[case]["label_sha256"] == now[case]["label_sha256"] for case in labelled)
    columns = Counter(
        name for case in common for name in now[case]
        if name in before[case] and name not in NOT_COMPARED and before[case][name] != now[case][name]
    )  # fmt: skip
    differing = ", ".join(f"{name} ({count} cases)" for name, count in sorted(columns.items())) or "none"
    return f"{images} of {len(common)} | {labels} of {len(labelled)} | {differing}"


def run_git(*words: str) -> None:
    """Runs a command of git in the checkout."""
    subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])

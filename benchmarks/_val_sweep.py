"""Sweeps on the hippocampus that test on the split val, since settings are still chosen; the split test is not used."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks._commands import make
from benchmarks.fewshot import provenance
from medssl import config
from medssl.data.manifest import Manifest
from medssl.fewshot import report
from medssl.fewshot.config import Sweep
from medssl.fewshot.sweep import require_measured, run_sweep

INGEST = "ingest ../shared/data/hippocampus --out {work}/store --split-fractions train=0.7,val=0.1,test=0.2"


def print_val_sweep(sweep: str, work: str, overrides: Sequence[str], out: str = "sweep") -> None:
    """Runs a sweep with val in the place of test, in `work`/`out`, and prints its table for each structure."""
    ingest = INGEST.format(work=work)
    make(Path(work, "store", "manifest.csv"), ingest)
    manifest = write_val_as_test(Path(work, "store", "manifest.csv"))
    words = [f"manifest={manifest}", f"out={work}/{out}", *overrides]
    settings = config.read(sweep, words, Sweep)
    rows, failures = run_sweep(settings, lambda message: print(message, file=sys.stderr, flush=True))
    require_measured(failures)
    print(f"```sh\nmedssl {ingest}\nmedssl fewshot {sweep} {' '.join(words)}\n```")
    print("`val-as-test.csv` is the manifest with the cases of val in the place of those of test.")
    for structure in dict.fromkeys(row.structure for row in rows):
        titles = report.column_titles(rows[0], settings.reference)
        lines = [report.format_row(row, settings.reference) for row in rows if row.structure == structure]
        print(f"\n### {structure}\n")
        print("\n".join(f"| {' | '.join(words)} |" for words in (titles, ["---"] * len(titles), *lines)))
    print(
        "\n| arm | "
        + " | ".join(f"seed {seed}" for seed in settings.seeds)
        + f" |\n{'|---' * (1 + len(settings.seeds))}|"
    )
    for row in report.select_main_rows(rows):
        print(f"| {row.arm} | {' | '.join(f'{score:.3f}' for score in row.by_seed)} |")
    provenance(settings.out)


def write_val_as_test(path: Path) -> Path:
    """Writes a copy of a manifest, in its folder, in which split test holds the cases of val."""
    manifest = Manifest.read(path)
    val = tuple(replace(case, split="test") for case in manifest.in_split("val").cases)
    written = path.with_name("val-as-test.csv")
    replace(manifest, cases=(*manifest.in_split("train").cases, *val)).write(written)
    return written

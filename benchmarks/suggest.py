"""Which volumes to label first: those that medssl suggests against random ones, 4 and 8 labels of real MR.

usage: python -m benchmarks.suggest [PRETRAINING] [STORE] [WORK], after benchmarks.fewshot, whose hippocampus it takes;
what lies in WORK already is not done again.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from medssl import config
from medssl.data.manifest import Manifest
from medssl.fewshot import report
from medssl.fewshot.cell import SweepCell
from medssl.fewshot.cell import run_cell as train
from medssl.fewshot.table import build_table
from medssl.models.select_cases import select_cases
from medssl.run import Run
from medssl.training.finetune_config import FinetuneConfig

PRETRAINING, STORE = "runs/fewshot/hippocampus/pretrained/spark", "runs/fewshot/hippocampus-store"
WORK = "runs/suggest"
CONFIG = "configs/finetune/hippocampus.yaml"
SHORT = (
    "encoder.channels=[8,16,32,64]", "train.epochs=6", "train.steps_per_epoch=40", "train.lr=4.0e-3",
    "train.ema_decay=0.95",
    "max_val_cases=0", "schedule=sawtooth",
)  # fmt: skip
SEEDS = (0, 1, 2)


def main(pretraining: str = PRETRAINING, store: str = STORE, place: str = WORK) -> None:
    """Trains every choice with every seed, and prints a row for each choice, held against the random one."""
    manifest, work = Manifest.read(Path(store, "manifest.csv")), Path(place)
    cells = []
    for labels, choice in ((4, "random"), (4, "suggested"), (8, "random"), (8, "suggested"), (8, "in two rounds")):
        chosen = _choose(choice, labels, Path(pretraining), manifest, work)
        cells += [_cell(choice, labels, seed, chosen, pretraining, work) for seed in SEEDS]
    print(f"`{pretraining}` suggests, and every finetuning starts from it: `{CONFIG} {' '.join(SHORT)}`.\n")
    lines = report.select_main_rows(build_table(cells, "random"))
    head = report.column_titles(lines[0], "random")
    rows = [head, ["---"] * len(head), *(report.format_row(line, "random") for line in lines)]
    print("\n".join(f"| {' | '.join(words)} |" for words in rows))


def _choose(choice: str, labels: int, pretraining: Path, manifest: Manifest, work: Path) -> Path:
    """A manifest in which only the chosen cases have labels; random ones are drawn by the finetuning itself."""
    if choice == "random":
        return manifest.folder / "manifest.csv"
    if choice == "suggested":
        return only(manifest, _suggest(pretraining, manifest, frozenset(), labels))
    first = _suggest(pretraining, manifest, frozenset(), 4)
    return only(manifest, first | _suggest(work / "suggested-4-0" / "run", manifest, first, labels - 4))


def _suggest(run: Path, manifest: Manifest, known: frozenset[str], n: int) -> frozenset[str]:
    """What a run suggests when only `known` cases have a label."""
    hidden = _hidden(manifest, known)
    return frozenset(suggestion.case for suggestion in select_cases(Run.open(run), hidden.in_split("train"), n))


def _hidden(manifest: Manifest, known: frozenset[str]) -> Manifest:
    cases = (replace(c, label=c.label if c.split == "test" or c.id in known else None) for c in manifest.cases)
    return replace(manifest, cases=tuple(cases))


def only(manifest: Manifest, known: frozenset[str]) -> Path:
    """A manifest in the same folder, in which only these cases and those of the split `test` have labels."""
    name = hashlib.sha256(" ".join(sorted(known)).encode()).hexdigest()[:12]
    path = manifest.folder / f"only-{name}.csv"
    _hidden(manifest, known).write(path)
    return path


def _cell(choice: str, labels: int, seed: int, chosen: Path, pretraining: str, work: Path) -> SweepCell:
    """Trained and tested, unless it was already."""
    folder = work / f"{choice}-{labels}-{seed}".replace(" ", "-")
    how = (
        f"manifest={chosen}",
        f"pretrained={pretraining}",
        f"num_labelled={labels}",
        f"run={folder / 'run'}",
        "resume=true",
    )
    settings = config.read(CONFIG, (*SHORT, *how, f"seed={seed}", f"train.seed={seed}"), FinetuneConfig)
    cell = SweepCell(choice, labels, seed, folder, settings, 1.0)
    if not cell.is_done and (fault := train(cell)):
        sys.exit(fault)
    return cell


if __name__ == "__main__":
    main(*sys.argv[1:])

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
from medssl.fewshot import report as page
from medssl.fewshot.cell import Cell
from medssl.fewshot.cell import work as train
from medssl.fewshot.table import lines
from medssl.models.select_cases import suggested
from medssl.run import Run
from medssl.training.finetune import Finetune

PRETRAINING, STORE = "runs/fewshot/hippocampus/pretrained/spark", "runs/fewshot/hippocampus-store"
WORK = "runs/suggest"
CONFIG = "configs/finetune/hippocampus.yaml"
SHORT = (
    "encoder.channels=[8,16,32,64]", "plan.epochs=6", "plan.steps=40", "plan.lr=4.0e-3", "plan.ema=0.95",
    "validate_on=0", "schedule=sawtooth",
)  # fmt: skip
SEEDS = (0, 1, 2)


def main(pretraining: str = PRETRAINING, store: str = STORE, place: str = WORK) -> None:
    """Trains every choice with every seed, and prints a row for each choice, held against the random one."""
    manifest, work = Manifest.read(Path(store, "manifest.csv")), Path(place)
    cells = []
    for labels, choice in ((4, "random"), (4, "suggested"), (8, "random"), (8, "suggested"), (8, "in two rounds")):
        chosen = _chosen(choice, labels, Path(pretraining), manifest, work)
        cells += [_cell(choice, labels, seed, chosen, pretraining, work) for seed in SEEDS]
    print(f"`{pretraining}` suggests, and every finetuning starts from it: `{CONFIG} {' '.join(SHORT)}`.\n")
    told = page.main(lines(cells, "random"))
    head = page.heads(told[0], "random")
    rows = [head, ["---"] * len(head), *(page.row(line, "random") for line in told)]
    print("\n".join(f"| {' | '.join(words)} |" for words in rows))


def _chosen(choice: str, labels: int, pretraining: Path, manifest: Manifest, work: Path) -> Path:
    """A manifest in which only the chosen cases have labels; random ones are drawn by the finetuning itself."""
    if choice == "random":
        return manifest.folder / "manifest.csv"
    if choice == "suggested":
        return only(manifest, _asked(pretraining, manifest, frozenset(), labels))
    first = _asked(pretraining, manifest, frozenset(), 4)
    return only(manifest, first | _asked(work / "suggested-4-0" / "run", manifest, first, labels - 4))


def _asked(run: Path, manifest: Manifest, known: frozenset[str], n: int) -> frozenset[str]:
    """What a run suggests when only `known` cases have a label."""
    hidden = _hidden(manifest, known)
    return frozenset(one.case for one in suggested(Run.open(run), hidden.by("train"), n))


def _hidden(manifest: Manifest, known: frozenset[str]) -> Manifest:
    cases = (replace(c, label=c.label if c.split == "test" or c.id in known else None) for c in manifest.cases)
    return replace(manifest, cases=tuple(cases))


def only(manifest: Manifest, known: frozenset[str]) -> Path:
    """A manifest beside the given one in which only these cases and those of the split `test` have labels."""
    name = hashlib.sha256(" ".join(sorted(known)).encode()).hexdigest()[:12]
    path = manifest.folder / f"only-{name}.csv"
    _hidden(manifest, known).write(path)
    return path


def _cell(choice: str, labels: int, seed: int, chosen: Path, pretraining: str, work: Path) -> Cell:
    """Trained and tested, unless it was already."""
    folder = work / f"{choice}-{labels}-{seed}".replace(" ", "-")
    how = (
        f"manifest={chosen}",
        f"pretrained={pretraining}",
        f"labels={labels}",
        f"run={folder / 'run'}",
        "resume=true",
    )
    settings = config.read(CONFIG, (*SHORT, *how, f"seed={seed}", f"plan.seed={seed}"), Finetune)
    cell = Cell(choice, labels, seed, folder, settings, 1.0)
    if not cell.done and (fault := train(cell)):
        sys.exit(fault)
    return cell


if __name__ == "__main__":
    main(*sys.argv[1:])

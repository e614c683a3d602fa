"""Every objective at equal CPU time: a frozen probe, and Dice with 1 and 4 labelled volumes of real MR.

usage: python -m benchmarks.methods [WORK] [KEY=VALUE ...]; what lies in WORK already is not done again.
"""

import json
import sys
from pathlib import Path

from benchmarks._val_sweep import print_val_sweep
from medssl.data.manifest import Manifest
from medssl.fewshot.probe_runs import ProbeScore, probe_run
from medssl.run import Run

VOLUMES, DRAWS = 4, 8
NAMES = (  # in the order in which they are pretrained
    "volume_fusion",
    "vicreg",
    "look",
    "dino",
    "alteration",
    "jepa",
    "graph_match",
    "cross_view",
    "predictive",
    "bag_of_words",
    "select_patch",
    "order",
    "rotation",
    "inpaint",
    "mae",
    "global_local",
)
CHANGES = {"look": {"pretraining": {"labels.source": "none"}}}  # no labels in any pretraining


def main(work: str = "runs/methods", *overrides: str) -> None:
    """Runs and prints the sweep, then the probe of each of its pretrainings."""
    arms = [f"arms.{name}={json.dumps(_make_arm(name))}" for name in NAMES]
    print_val_sweep("configs/fewshot/objectives.yaml", work, [*arms, *overrides])
    manifest = Manifest.read(Path(work, "store", "manifest.csv"))
    print(f"\n### Frozen probe\n\n{VOLUMES} labelled volumes, {DRAWS} draws of them and of untrained encoders.\n")
    titles = ("linear: Dice", "untrained", "difference [95 %]", "kNN: accuracy", "untrained", "difference [95 %]")
    print(f"| objective | steps | {' | '.join(titles)} |\n{'|---' * (2 + len(titles))}|")
    for path in sorted(Path(work, "sweep", "pretrained").iterdir()):
        run = Run.open(path)
        train, scores = run.read_settings()["train"], probe_run(run, manifest, VOLUMES, DRAWS)[0]
        words = [path.name, str(train["epochs"] * train["steps_per_epoch"])]
        print(f"| {' | '.join((*words, *_format(scores.linear), *_format(scores.knn)))} |", flush=True)


def _make_arm(name: str) -> dict[str, object]:
    start = {"pretrain": f"configs/pretrain/{name}.yaml", "changes": {"schedule": "sawtooth"}}
    return {**start, **CHANGES.get(name, {})}


def _format(score: ProbeScore) -> tuple[str, str, str]:
    return f"{score.trained:.3f}", f"{score.untrained:.3f}", score.difference.format("+.3f")


if __name__ == "__main__":
    main(*sys.argv[1:])

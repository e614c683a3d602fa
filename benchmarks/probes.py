"""What each objective's features are worth: a frozen probe on real data against that of random encoders.

usage: python -m benchmarks.probes [WORK] [SET ...]; what lies in WORK already is not done again.
"""

import sys
from pathlib import Path

from benchmarks._commands import make
from benchmarks.objectives import NAMES
from medssl.data.manifest import Manifest
from medssl.fewshot.probe_runs import probe_run
from medssl.run import Run

SETS = {
    "hippocampus": ("patch_size=[32,48,32]", "train.steps_per_epoch=40"),
    "headneck_ct": ("patch_size=[48,48,32]", "train.steps_per_epoch=15"),
}
SAME = ("encoder.channels=[8,16,32,64]", "train.epochs=15", "train.batch_size=4", "train.lr=2.0e-3")
VOLUMES, SEEDS = 4, 8


def main(work: str = "runs/probes", *sets: str) -> None:
    """Pretrains every objective with the same steps on each set, and prints a table."""
    description = "; ".join(f"{name} {' '.join(SETS[name])}" for name in sets or SETS)
    print(f"{' '.join(SAME)}; {description}")
    print(f"Probe: {VOLUMES} labelled volumes, {SEEDS} draws of them and of random encoders.\n")
    print("| set | objective | probe Dice | random encoder | difference [95 % over draws] | pretraining, CPU minutes |")
    print("|---|---|---|---|---|---|")
    for name in sets or SETS:
        store = Path(work, name, "store")
        make(store, f"ingest ../shared/data/{name} --out {store}")
        for objective in NAMES:
            run = Path(work, name, objective)
            how = f"manifest={store}/manifest.csv run={run} resume=true {' '.join((*SETS[name], *SAME))}"
            make(run / "SHA256SUMS", f"pretrain configs/pretrain/{objective}.yaml {how}")
            row = probe(Run.open(run), Manifest.read(store / "manifest.csv"))
            print(f"| {name} | {objective} | {' | '.join(row)} |", flush=True)


def probe(run: Run, manifest: Manifest) -> tuple[str, ...]:
    """The probe of a pretrained encoder, that of random ones, their paired difference, and the CPU minutes it took."""
    score = probe_run(run, manifest, VOLUMES, SEEDS)[0].linear
    spent = run.metadata["resource_usage"]["cpu_hours"] * 60
    return f"{score.trained:.3f}", f"{score.untrained:.3f}", score.difference.format("+.3f"), f"{spent:.0f}"


if __name__ == "__main__":
    main(*sys.argv[1:])

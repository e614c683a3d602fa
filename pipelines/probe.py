"""Probes what the frozen features of runs are worth: medssl probe RUN [RUN ...] --manifest MANIFEST --num-labelled 4"""

import argparse
from pathlib import Path

from medssl.errors import BadInput

SCORE_COLUMNS = ("untrained", "difference [95 % over draws]")
COLUMNS = ("run", "features", "linear: Dice", *SCORE_COLUMNS, "kNN: accuracy", *SCORE_COLUMNS)


def main(words: list[str]) -> None:
    """Prints the linear and the kNN probe of each run, and of untrained networks."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.fewshot.probe_runs import probe_run
    from medssl.run import Run

    if args.num_labelled < 1 or args.draws < 2:
        raise BadInput(
            f"--num-labelled {args.num_labelled} --draws {args.draws}: give at least 1 labelled volume and 2 draws"
        )
    manifest = Manifest.read(args.manifest)
    runs = [Run.open(path) for path in args.runs]
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for run in runs:
        for row in probe_run(run, manifest, args.num_labelled, args.draws):
            cells = [str(run.path), row.features]
            for score in (row.linear, row.knn):
                cells += [f"{score.trained:.3f}", f"{score.untrained:.3f}", score.difference.format("+.3f")]
            print(f"| {' | '.join(cells)} |", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl probe", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished pretrainings or finetunings")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv of a store with labels")
    parser.add_argument(
        "--num-labelled", type=int, default=4, help="labelled volumes that probes are fitted on (default: 4)"
    )
    parser.add_argument(
        "--draws", type=int, default=5, help="draws of labelled volumes and untrained networks (default: 5)"
    )
    return parser

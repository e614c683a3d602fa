"""Probes what the frozen features of runs are worth: medssl probe RUN [RUN ...] --manifest MANIFEST --num-labelled 4"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Prints the Dice of linear heads on the features of each run, and on those of untrained encoders."""
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
    print("| run | Dice on its features | on untrained ones | difference [95 % over draws] |\n|---|---|---|---|")
    for run in runs:
        score = probe_run(run, manifest, args.num_labelled, args.draws)
        print(f"| {run.path} | {score.trained:.3f} | {score.untrained:.3f} | {score.difference.format('+.3f')} |")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl probe", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished pretrainings or finetunings")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv of a store with labels")
    parser.add_argument(
        "--num-labelled", type=int, default=4, help="labelled volumes that a head is fitted on (default: 4)"
    )
    parser.add_argument(
        "--draws", type=int, default=5, help="draws of labelled volumes and untrained encoders (default: 5)"
    )
    return parser

"""Ranks unlabelled cases to annotate next: medssl suggest RUN MANIFEST --count 4"""

import argparse
from dataclasses import replace
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Prints the cases with the reason for each, and writes them as CSV on request."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.files import write_text
    from medssl.metrics.case_scores import to_csv
    from medssl.models.select_cases import locate_slices, select_cases
    from medssl.models.trained_model import default_device
    from medssl.run import Run

    if args.out and args.out.suffix != ".csv":
        raise BadInput(f"--out {args.out}: a table is a .csv file; choose a name that ends in .csv")
    trained, manifest, device = Run.open(args.run), Manifest.read(args.manifest).in_split(args.split), default_device()
    selected = select_cases(trained, manifest, args.count, device)
    if args.slices:
        slices = locate_slices(trained, manifest, [row.case for row in selected], args.slices, device)
        selected = [replace(row, slices=" ".join(map(str, slices[row.case]))) for row in selected]
    for row in selected:
        print(f"{row.rank:>3}  {row.case}  {f'slices {row.slices}; ' if row.slices else ''}{row.reason}")
    if args.out:
        write_text(args.out, to_csv(selected))
        print(args.out)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl suggest", description=__doc__)
    parser.add_argument(
        "run", type=Path, help="a pretraining (uses similarity) or a finetuning (uses similarity and uncertainty)"
    )
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store")
    parser.add_argument("--count", type=int, default=4, help="number of cases (default: 4)")
    parser.add_argument(
        "--slices", type=int, default=0, help="also name this number of slices of each case, to annotate these alone"
    )
    parser.add_argument("--split", default="train", help="split of the manifest (default: train)")
    parser.add_argument("--out", type=Path, help="a CSV file for rank, case, coverage, uncertainty, reason and slices")
    return parser

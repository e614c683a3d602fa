"""Trains a finished run again and compares weights and scores: medssl reproduce RUN --out FOLDER"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Prints what differs; a run that is not reproduced is an error."""
    args = build_parser().parse_args(words)
    from medssl.run import Run
    from medssl.training.run_records.reproduce import reproduce

    run = Run.open(args.run)
    result = reproduce(run, args.out or run.path.with_name(f"{run.path.name}-again"))
    for name, (first, second) in sorted(result.scores.items()):
        print(f"{name}: {first:.6g} before, {second:.6g} now")
    for text in result.differences:
        print(f"differs: {text}")
    within = bool(result.differences) and result.largest_score_difference <= args.tolerance
    if not result.is_bitwise and not within:
        allowed = f"at most {args.tolerance:g} is allowed" if result.differences else "nothing explains a difference"
        raise BadInput(f"{run.path}: not reproduced: {result.describe()}; {allowed}; see {result.again.path}")
    print(f"{run.path}: reproduced in {result.again.path}: {result.describe()}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl reproduce", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished pretraining or finetuning, whose manifest still exists")
    parser.add_argument("--out", type=Path, help="a new folder (default: RUN-again)")
    parser.add_argument(
        "--tolerance", type=float, default=0.02,
        help="largest difference of a score where machine, threads, packages or code differ (default: 0.02); where"
        " nothing differs the weights must be equal, bit for bit",
    )  # fmt: skip
    return parser

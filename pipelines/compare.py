"""Compares two evaluations of the same cases, paired by patient: medssl compare A/evaluation B/evaluation"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Prints, per label, both means, the paired difference with its interval over patients, and a verdict."""
    args = build_parser().parse_args(words)
    from rich.console import Console
    from rich.table import Table

    from medssl.evaluation.compare import compare
    from medssl.metrics.statistics import small_sample_warning

    first, second = args.names
    table = Table(
        *("label", first, second, "difference [95 %]", "p", ""), title=f"{args.metric}: {first} against {second}"
    )
    rows = compare(args.first, args.second, args.metric)
    for row in rows:
        means, gap = (f"{row.first:.3f}", f"{row.second:.3f}"), row.difference.format("+.3f")
        table.add_row(row.label, *means, gap, f"{row.p:.3g}", row.verdict(first, second))
    Console().print(table)
    if warning := small_sample_warning(rows[-1].patients):
        print(warning)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl compare", description=__doc__)
    parser.add_argument("first", type=Path, help="folder of an evaluation")
    parser.add_argument("second", type=Path, help="folder of another evaluation of the same cases")
    parser.add_argument(
        "--metric",
        default="dice",
        help="column of cases.csv (default: dice); smaller is better for distances and volume errors",
    )
    parser.add_argument("--names", nargs=2, default=("first", "second"), help="names of the two in the table")
    return parser

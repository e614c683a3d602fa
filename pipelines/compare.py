"""Holds two evaluations of the same cases against each other: medssl compare A/evaluation B/evaluation"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from medssl.evaluation.compare import compare
from medssl.metrics.statistics import caution


def main(words: list[str]) -> None:
    """Prints, per label, both means, the paired difference with its interval over patients, and what may be said."""
    parser = argparse.ArgumentParser(prog="medssl compare", description=__doc__)
    parser.add_argument("first", type=Path, help="the folder an evaluation wrote")
    parser.add_argument("second", type=Path, help="another, of the same cases")
    parser.add_argument(
        "--metric",
        default="dice",
        help="a column of cases.csv (default: dice); of distances and volume errors, less is better",
    )
    parser.add_argument("--names", nargs=2, default=("first", "second"), help="what to call the two")
    given = parser.parse_args(words)
    one, other = given.names
    table = Table(*("label", one, other, "difference [95 %]", "p", ""), title=f"{given.metric}: {one} against {other}")
    rows = compare(given.first, given.second, given.metric)
    for row in rows:
        means, gap = (f"{row.first:.3f}", f"{row.second:.3f}"), row.gap.said("+.3f")
        table.add_row(row.label, *means, gap, f"{row.p:.3g}", row.verdict(one, other))
    Console().print(table)
    if said := caution(rows[-1].patients):
        print(said)

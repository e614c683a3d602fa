"""Finds patients, series and images that training and test cases share: medssl check-leakage POOL [TEST]"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Compares both sides; an overlap is an error."""
    args = build_parser().parse_args(words)
    from medssl.data.checks import leakage

    pool, test = leakage.split_sides(args.pool, args.test)
    leakage.require_disjoint(pool, test, (str(args.pool), str(args.test or "its own val and test")))
    print(f"{len(pool)} and {len(test.cases)} cases: no patient, series or image in common")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl check-leakage", description=__doc__)
    parser.add_argument("pool", type=Path, help="training side: a manifest.csv, or the folder of a run")
    parser.add_argument(
        "test", type=Path, nargs="?", help="manifest.csv of the test side (default: val and test of the pool)"
    )
    return parser

"""Looks for patients, series and images that training and test cases share: medssl check-leakage POOL [TEST]"""

import argparse
from pathlib import Path

from medssl.data.checks import leakage as leaks


def main(argv: list[str]) -> None:
    """Holds each side against the other; an overlap is an error."""
    parser = argparse.ArgumentParser("medssl check-leakage", description=__doc__)
    parser.add_argument("pool", type=Path, help="what is trained on: a manifest.csv, or the folder of a run")
    parser.add_argument("test", type=Path, nargs="?", help="the manifest.csv tested on; else the pool's val and test")
    asked = parser.parse_args(argv)
    pool, test = leaks.sides(asked.pool, asked.test)
    leaks.refuse(pool, test, (str(asked.pool), str(asked.test or "its own val and test")))
    print(f"{len(pool)} and {len(test)} cases: no patient, series or image in common")

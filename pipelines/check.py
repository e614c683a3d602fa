"""Looks for patients, series and images that training and test cases share."""

import argparse
from dataclasses import replace
from pathlib import Path

from medssl.data import leaks
from medssl.data.manifest import Manifest


def main(argv: list[str]) -> None:
    """Runs `medssl check POOL [--against TEST]`; an overlap is an error."""
    parser = argparse.ArgumentParser("medssl check", description=__doc__)
    parser.add_argument("pool", type=Path, help="the manifest.csv that is trained on")
    parser.add_argument(
        "--against", type=Path, help="the manifest.csv that is tested on; else the pool's own val and test"
    )
    asked = parser.parse_args(argv)
    pool = Manifest.read(asked.pool)
    if asked.against:
        test = Manifest.read(asked.against)
    else:
        test = replace(pool, cases=pool.by("val").cases + pool.by("test").cases)
        pool = pool.by("train")
    leaks.refuse(pool, test)
    print(f"{len(pool.cases)} and {len(test.cases)} cases: no patient, series or image in common")

"""Ranks unlabelled cases to annotate next: medssl suggest RUN MANIFEST --n 4"""

import argparse
from pathlib import Path

from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.files import write_text
from medssl.metrics.case_scores import table
from medssl.models.select_cases import suggested
from medssl.models.trained_model import fastest
from medssl.run import Run


def main(words: list[str]) -> None:
    """Prints the cases with the reason for each, and writes them as CSV on request."""
    parser = argparse.ArgumentParser(prog="medssl suggest", description=__doc__)
    parser.add_argument("run", type=Path, help="a pretraining (how alike cases are), or a finetuning (its doubts too)")
    parser.add_argument("manifest", type=Path, help="a store's manifest.csv")
    parser.add_argument("--n", type=int, default=4, help="how many cases (default: 4)")
    parser.add_argument("--split", default="train", help="which of its cases (default: train)")
    parser.add_argument("--out", type=Path, help="a CSV file with rank, case, coverage, doubt and reason")
    given = parser.parse_args(words)
    if given.out and given.out.suffix != ".csv":
        raise BadInput(f"--out {given.out}: is no name for a table; choose one that ends in .csv")
    found = suggested(Run.open(given.run), Manifest.read(given.manifest).by(given.split), given.n, fastest())
    for one in found:
        print(f"{one.rank:>3}  {one.case}  {one.reason}")
    if given.out:
        write_text(given.out, table(found))
        print(given.out)

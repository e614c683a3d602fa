"""Writes reviewed predictions as DICOM SEG and SR, PDF and CSV: medssl deliver PREDICTIONS --dicom SCANS --out DIR"""

import argparse
import getpass
from pathlib import Path

from medssl.export.export import Wanted, write
from medssl.io.dicom.seg_writer import Kind
from medssl.predictions_folder import read_index
from medssl.review.access.reviewers import MAY, Reviewer
from medssl.review.event_store import Store, placed


def main(words: list[str]) -> None:
    """Writes what was signed; a case that cannot be delivered is named with the reason."""
    parser = argparse.ArgumentParser(prog="medssl deliver", description=__doc__)
    parser.add_argument("predictions", type=Path, help="what `medssl predict` wrote and `medssl review` showed")
    parser.add_argument("--dicom", type=Path, help="the scans that were predicted; without them PDF and CSV alone")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument(
        "--store", help="where the verdicts are, a file or a URL; PREDICTIONS-review.sqlite unless given"
    )
    parser.add_argument("--unsigned", action="store_true", help="also what nobody signed, marked as not verified")
    parser.add_argument("--labelmap", action="store_true", help="a LABELMAP SEG: smaller, but fewer programs read it")
    parser.add_argument("--organization", default="", help="whose reviewer signs, as the SR names it")
    parser.add_argument("--no-notes", action="store_true", help="leaves out what reviewers wrote in words of their own")
    parser.add_argument("--reviewer", default=getpass.getuser(), help="who takes it away, as the record will tell")
    parser.add_argument("--role", choices=MAY["deliver"], default="senior", help="and in which role")
    given = parser.parse_args(words)
    index = read_index(given.predictions)
    store = Store.existing(placed(given.store, index.folder))
    kind: Kind = "LABELMAP" if given.labelmap else "BINARY"
    wanted = Wanted(given.dicom, given.unsigned, kind, given.organization, not given.no_notes)
    told = write(index, store, given.out, wanted, Reviewer(given.reviewer, given.role))
    for outcome in told:
        if outcome.reason:
            print(f"left out {outcome.case}: {outcome.reason}")
    print(f"{sum(not outcome.reason for outcome in told)} of {len(told)} cases in {given.out}. {index.notice}")

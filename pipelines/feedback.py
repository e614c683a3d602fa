"""Turns reviewed predictions into a labelled data set: medssl feedback PREDICTIONS --out DATASET"""

import argparse
from pathlib import Path

from medssl.data.manifest import Manifest
from medssl.predictions_folder import read_index
from medssl.review.event_store import Store, placed
from medssl.review.feedback import write


def main(words: list[str]) -> None:
    """Writes what readers accepted and corrected; a case that cannot be learned from is named with the reason."""
    parser = argparse.ArgumentParser(prog="medssl feedback", description=__doc__)
    parser.add_argument("predictions", type=Path, help="what `medssl predict` wrote and `medssl review` showed")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument(
        "--store", help="where the verdicts are, a file or a URL; PREDICTIONS-review.sqlite unless given"
    )
    parser.add_argument("--after", type=Path, help="an earlier data set of this kind, to be continued")
    parser.add_argument(
        "--manifest", type=Path, help="a store's manifest.csv, for patients the predictions do not tell"
    )
    given = parser.parse_args(words)
    index = read_index(given.predictions)
    store = Store.existing(placed(given.store, index.folder))
    patients = {case.id: case.patient for case in Manifest.read(given.manifest).cases} if given.manifest else {}
    told = write(index, store.events(), given.out, patients, given.after)
    for outcome in told:
        if not outcome.reading:
            print(f"left out {outcome.case}: {outcome.reason}")
    used = sum(outcome.reading is not None for outcome in told)
    print(f"{used} of {len(told)} cases in {given.out}; go on with: medssl ingest {given.out} --out STORE")

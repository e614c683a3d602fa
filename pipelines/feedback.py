"""Turns reviewed predictions into a labelled data set: medssl feedback PREDICTIONS --out DATASET"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the accepted and corrected labels; a case that cannot be used is listed with the reason."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.predictions_folder import read_index
    from medssl.review.event_store import EventStore, resolve_database
    from medssl.review.feedback import write_feedback

    index = read_index(args.predictions)
    store = EventStore.open_existing(resolve_database(args.audit_db, index.folder))
    patients = {case.id: case.patient for case in Manifest.read(args.manifest).cases} if args.manifest else {}
    results = write_feedback(index, store.read_events(), args.out, patients, args.extend)
    for result in results:
        if not result.reading:
            print(f"left out {result.case}: {result.reason}")
    used = sum(result.reading is not None for result in results)
    print(f"{used} of {len(results)} cases in {args.out}; go on with: medssl ingest {args.out} --out STORE")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl feedback", description=__doc__)
    parser.add_argument("predictions", type=Path, help="what `medssl predict` wrote and `medssl review` showed")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument(
        "--audit-db", help="database of the verdicts, a file or a URL (default: PREDICTIONS-review.sqlite)"
    )
    parser.add_argument("--extend", type=Path, help="an earlier feedback data set to extend")
    parser.add_argument("--manifest", type=Path, help="manifest.csv of a store that holds the patient of each case")
    return parser

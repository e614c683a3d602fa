"""Writes reviewed predictions as DICOM SEG and SR, PDF and CSV: medssl deliver PREDICTIONS --dicom SCANS --out DIR"""

import argparse
import getpass
from functools import partial
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes all signed cases; a case that cannot be exported is listed with the reason."""
    args = build_parser().parse_args(words)
    from medssl.export import archive_delivery
    from medssl.export.export import ExportOptions, export_review
    from medssl.io.dicom.seg_writer import Kind
    from medssl.predictions_folder import read_index
    from medssl.review.access.reviewers import Reviewer
    from medssl.review.audit.prediction_events import record_predictions
    from medssl.review.event_store import EventStore, resolve_database

    index = read_index(args.predictions)
    open_store = EventStore if args.unsigned and not args.audit_db else EventStore.open_existing
    store = open_store(resolve_database(args.audit_db, index.folder))
    if args.unsigned:
        record_predictions(index, store)
    kind: Kind = "LABELMAP" if args.labelmap else "BINARY"
    dicom = args.dicom
    if args.dicomweb and not dicom:
        dicom = archive_delivery.retrieve_scans(args.dicomweb, index.folder)
    options = ExportOptions(
        dicom, args.unsigned, kind, args.organization, not args.no_notes, include_rtstruct=args.rtstruct
    )
    send = partial(archive_delivery.send_documents, args.dicomweb) if args.dicomweb else None
    results = export_review(index, store, args.out, options, Reviewer(args.reviewer, args.role), send)
    for result in results:
        if result.reason:
            print(f"left out {result.case}: {result.reason}")
    print(f"{sum(not result.reason for result in results)} of {len(results)} cases in {args.out}. {index.notice}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl deliver", description=__doc__)
    parser.add_argument("predictions", type=Path, help="what `medssl predict` wrote and `medssl review` showed")
    parser.add_argument(
        "--dicom", type=Path, help="the predicted DICOM scans; without them only PDF and CSV are written"
    )
    parser.add_argument(
        "--dicomweb",
        metavar="ADDRESS",
        help="stores SEG and SR in an archive, and without --dicom retrieves the scans from it: "
        "dicomweb+https://HOST/PATH?PatientID=ID",
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument(
        "--audit-db", help="database of the verdicts, a file or a URL (default: PREDICTIONS-review.sqlite)"
    )
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="also export cases that are unsigned or that nobody opened, marked as not verified",
    )
    parser.add_argument("--labelmap", action="store_true", help="a LABELMAP SEG: smaller, but fewer programs read it")
    parser.add_argument("--rtstruct", action="store_true", help="also write the outlines as RTSTRUCT contours")
    parser.add_argument("--organization", default="", help="organization of the reviewer, for the SR")
    parser.add_argument("--no-notes", action="store_true", help="leave out the reviewers' free text")
    parser.add_argument("--reviewer", default=getpass.getuser(), help="who exports, for the record")
    parser.add_argument(
        "--role", choices=("reader", "senior", "admin"), default="senior", help="role of the exporting person"
    )
    return parser

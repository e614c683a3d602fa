"""Makes a predictions folder from another tool's masks: medssl import-predictions MASKS SCANS --out DIR --tool TOOL"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a predictions folder for `medssl evaluate`, `compare`, `review` and `deliver`."""
    args = build_parser().parse_args(words)
    from medssl.data.class_kinds import parse_kinds
    from medssl.data.ingest.read_source import list_scans
    from medssl.inference.import_masks import ExternalMasks, join_channels
    from medssl.inference.prediction_writer import PredictionWriter
    from medssl.predictions_folder import IMPORTED

    listed_scans = join_channels(list_scans(args.scans, args.split, args.modality))
    cases = [scan.case for scan in listed_scans]
    external = ExternalMasks.from_folder(args.masks, args.names, cases, parse_kinds(args.kinds))
    model = {
        "run": args.tool, "weights_sha256": IMPORTED, "tool": args.tool, "tool_version": args.tool_version,
        "tool_type": args.tool_type,
    }  # fmt: skip
    matched = [scan for scan in listed_scans if scan.case in external.masks]
    open_writer = PredictionWriter.resume if args.resume else PredictionWriter.create
    requested = [scan.case for scan in matched]
    open_writer(args.out, external.names, model, external.kinds, requested=requested).predict_all(
        matched, external.to_prediction
    )
    if args.audit_db:
        _record_predictions(args.out, args.audit_db)
    unmatched = [scan.case for scan in listed_scans if scan.case not in external.masks]
    if unmatched:
        names = ", ".join(unmatched[:5]) + " ..." * (len(unmatched) > 5)
        print(f"no mask for {len(unmatched)} of {len(listed_scans)} cases: {names}")
    print(f"{len(matched)} cases in {args.out}; look at them with: medssl review {args.out}")


def _record_predictions(folder: Path, database: str) -> None:
    """Records the predictions as events; `medssl review` does the same for those that it shows."""
    from medssl.predictions_folder import read_index
    from medssl.review.audit.prediction_events import record_predictions
    from medssl.review.event_store import EventStore, resolve_database

    record_predictions(read_index(folder), EventStore(resolve_database(database, folder)))


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl import-predictions", description=__doc__)
    parser.add_argument(
        "masks",
        type=Path,
        help="folder of CASE.nii.gz (nnU-Net), CASE/ANY.nii.gz, CASE_ANY.nii.gz or, one file for each structure,"
        " CASE/STRUCTURE.nii.gz (TotalSegmentator)",
    )
    parser.add_argument("scans", type=Path, help="the predicted scans: a folder, or a manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or with --resume an unfinished one")
    parser.add_argument(
        "--tool", required=True, metavar="TOOL", help="name of the tool, for example 'nnU-Net'; SEG and SR state it"
    )
    parser.add_argument("--tool-version", default="", metavar="VERSION", help="version of the tool, for example 2.6.2")
    parser.add_argument(
        "--tool-type", default="automatic", choices=("automatic", "semiautomatic", "manual"),
        help="how the masks were made: manual for contours that people drew (default: automatic)",
    )  # fmt: skip
    parser.add_argument(
        "--names",
        default="",
        help="names of the classes 1, 2, ... separated by commas (default: of MASKS/dataset.json, of the structures'"
        " files, or of the header)",
    )
    parser.add_argument(
        "--kinds", default="", metavar="NAME=KIND,...", help="organ or lesion, for classes whose name does not say it"
    )
    parser.add_argument("--split", default="test", help="split of the manifest (default: test)")
    parser.add_argument(
        "--modality", default="", choices=["", "CT", "MR"], help="modality of image files that do not record one"
    )
    parser.add_argument(
        "--audit-db", help="database of the review, a file or a URL, that records this prediction (needs medssl[app])"
    )
    parser.add_argument("--resume", action="store_true", help="add the missing cases to a folder")
    return parser

"""Predicts volumes on their own grid: medssl predict RUN [RUN ...] SCANS_OR_MANIFEST --out PREDICTIONS"""

import argparse
from dataclasses import replace
from pathlib import Path

from medssl.errors import BadInput

WINDOW_OPTIONS = "overlap", "precision", "crop_body_mm"


def main(words: list[str]) -> None:
    """Writes labels, probabilities and findings of every case on the grid of its scan."""
    args = build_parser().parse_intermixed_args(words)
    from medssl.data.worker_pool import make_job_runner
    from medssl.models.prediction.open_models import WorkerPredictor, open_models
    from medssl.models.prediction.prepared import PredictionOptions

    run_jobs = make_job_runner(args.workers, args.scheduler)
    if args.dates and args.scans.is_file():
        raise BadInput("--dates: a store holds no dates; predict the folder of scans instead")
    documents = None
    if args.dicom_out:
        from medssl.export.predicted_documents import PredictedDocuments

        documents = PredictedDocuments.open(args.dicom_out, args.resume)
    window = {name: value for name in WINDOW_OPTIONS if (value := getattr(args, name)) is not None}
    options = PredictionOptions(args.tta, args.calibration, tuple(args.channels), args.device, args.batch, **window)
    models = open_models(args.runs, args.scans, args.split)
    has_workers = bool(args.workers or args.scheduler)
    prediction = models.prepare(replace(options, device="cpu") if has_workers else options)
    place = args.runs, args.scans, args.split
    predict = WorkerPredictor.create(*place, options, args.workers) if has_workers else prediction.stream
    scans = models.list_scans(args.scans.absolute(), args.split, args.modality)
    reading = {name: getattr(args, name) for name in ("modality", "dates") if getattr(args, name)}
    prediction.open_writer(args.out, [scan.case for scan in scans], args.resume, **reading).predict_all(
        scans,
        predict,
        args.dates,
        documents.add_scan if documents else None,
        run_jobs,
    )
    if documents:
        documents.require_complete()
    if args.audit_db:
        _record_predictions(args.out, args.audit_db)
    print(f"{len(scans)} cases in {args.out}; look at them with: medssl review {args.out}")


def _record_predictions(folder: Path, database: str) -> None:
    """Records the predictions as events; `medssl review` does the same for those that it shows."""
    from medssl.predictions_folder import read_index
    from medssl.review.audit.prediction_events import record_predictions
    from medssl.review.event_store import EventStore, resolve_database

    record_predictions(read_index(folder), EventStore(resolve_database(database, folder)))


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl predict", description=__doc__)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="finished finetunings, or ONNX files of `medssl publish --onnx`; several form an ensemble",
    )
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or with --resume an unfinished one")
    parser.add_argument(
        "--split", default="test",
        help="split of the manifest (default: test); held-out: each case by the fold's run that did not train on it",
    )  # fmt: skip
    parser.add_argument(
        "--modality", default="", choices=["", "CT", "MR"], help="modality of image files that do not record one"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: average over mirrored views, where training mirrored too",
    )
    parser.add_argument(
        "--calibration", type=Path, help="a file that `medssl calibrate` wrote (default: the run's own)"
    )
    parser.add_argument(
        "--channels",
        type=int,
        nargs="+",
        default=[],
        help="indices of the channels that the scans have, for example 0 2 (default: all)",
    )
    _add_computing_options(parser)
    parser.add_argument(
        "--dates", action="store_true", help="record the study dates of a folder's scans, which can identify a person"
    )
    parser.add_argument(
        "--dicom-out", type=Path, metavar="DIR",
        help="a folder for the documents of each case, not verified: DICOM SEG and SR of DICOM scans, a PDF page, a "
        "montage and tables of the findings (needs medssl[onnx] or medssl[app])",
    )  # fmt: skip
    parser.add_argument(
        "--audit-db", help="database of the review, a file or a URL, that records this prediction (needs medssl[app])"
    )
    parser.add_argument("--resume", action="store_true", help="add the missing cases to a folder")
    return parser


def _add_computing_options(parser: argparse.ArgumentParser) -> None:
    """Adds where and how exactly the networks compute."""
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:NUMBER (default: a GPU if there is one)")
    parser.add_argument("--batch", type=int, default=2, help="windows per forward pass (default: 2)")
    parser.add_argument(
        "--overlap", type=float,
        help="fraction of a window that overlaps the next one (default: 0.5, or that of an imported bundle); less is "
        "faster and less exact",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"],
        help="bf16: mixed precision, faster where the processor supports it, with slightly different probabilities",
    )  # fmt: skip
    parser.add_argument(
        "--crop-body", type=float, metavar="MM", dest="crop_body_mm",
        help="compute only windows within this distance of the body; a segmentation is background elsewhere",
    )  # fmt: skip
    jobs = parser.add_mutually_exclusive_group()
    jobs.add_argument(
        "--workers", type=int, default=0,
        help="processes that predict several cases at once, on several GPUs if there are (default: 0, this process)",
    )  # fmt: skip
    jobs.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="predict on the workers of a dask scheduler instead"
    )

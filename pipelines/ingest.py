"""Turns a folder of scans into a store, a manifest and a ledger of every file: medssl ingest SCANS --out STORE"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import BadInput
from medssl.io.dicomweb.address import is_address

if TYPE_CHECKING:
    from medssl.data.ingest.pipeline import IngestSummary


def main(words: list[str]) -> None:
    """Writes or extends the store and prints what was read and what was rejected."""
    args = build_parser().parse_args(words)
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from medssl.config import check
    from medssl.data.class_kinds import parse_kinds
    from medssl.data.ingest.config import IngestConfig
    from medssl.data.ingest.dry_run import plan_ingestion
    from medssl.data.ingest.pipeline import ingest, is_new_store
    from medssl.data.store_metadata import StoreMetadata

    options = check({
        "spacing_mm": _parse_spacing(args.spacing), "modality": "" if args.modality == "auto" else args.modality,
        "window_hu": _parse_window(args.window_hu), "kinds": parse_kinds(args.kinds),
        "normalization": args.normalization, "num_workers": args.workers,
        "split_fractions": args.split_fractions and _parse_fractions(args.split_fractions),
        "image_patterns": args.image, "label_patterns": args.label, "patient_pattern": args.patient,
        "seed": args.seed, "resplit": args.resplit, "patients": args.patients, "case_labels": args.case_labels,
        "scheduler": args.scheduler, "allow_gaps": args.allow_gaps, "select": args.select,
        "structures": args.structures, "follow_links": args.follow_links, "deidentify": args.deidentify,
        "hide_names": args.hide_names, "pseudonym_key": args.pseudonym_key,
    }, IngestConfig, "medssl ingest")  # fmt: skip
    if args.dry_run:
        print(
            _list_remote(args.scans) if is_address(args.scans) else plan_ingestion(Path(args.scans), options).render()
        )
        return
    if args.out is None:
        raise BadInput(
            "--out STORE is missing; name the folder of the store, or add --dry-run to see what would be read"
        )
    is_new_store(args.out)  # what cannot be a store is refused before anything is retrieved
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns) as progress:

        def show_progress(name: str) -> Callable[[int, int], None]:
            bar = progress.add_task(name, total=None, visible=False)
            return lambda done, total: progress.update(bar, completed=done, total=total, visible=True)

        scans = Path(args.scans)
        if is_address(args.scans):
            scans = _retrieve(args.scans, args.out, show_progress("files"))
        summary = ingest(scans, args.out, options, show_progress("cases"))
    print(summary.describe())
    for note in summary.notes:
        print(f"  {note}")
    for reason, number in summary.count_rejections():
        print(f"  rejected {number}: {reason.encode('utf-8', 'backslashreplace').decode()}")
    for warning, number in summary.count_warnings():
        print(f"  warning in {number} cases: {warning.encode('utf-8', 'backslashreplace').decode()}")
    if regions := StoreMetadata.read(args.out).regions:
        print(f'regions {", ".join(regions)}: finetune with "task.regions={list(regions.values())}" to learn them')
    print(f"{args.out / 'manifest.csv'}\n{args.out / 'ledger.csv'}\n{args.out / 'report.html'}")
    _require_labels(summary, args.out, args.deidentify)


def _require_labels(summary: "IngestSummary", out: Path, is_deidentified: bool) -> None:
    """Raises BadInput if labelled cases were refused, with the file that names them."""
    from medssl.data.ingest.deidentification import private_dir

    if lost := summary.describe_lost_labels():
        ledger = private_dir(out) / "files.csv" if is_deidentified else out / "ledger.csv"
        raise BadInput(
            f"{lost.encode('utf-8', 'backslashreplace').decode()}. The store holds the other cases; {ledger} names the"
            " files: mend them and run it again"
        )


def _retrieve(address: str, out: Path, on_progress: Callable[[int, int], None]) -> Path:
    """Retrieves the series of an address into the private folder of a store, and returns the folder of all of them."""
    from medssl.data.ingest.deidentification import private_dir
    from medssl.io.dicomweb.address import parse_address
    from medssl.io.dicomweb.retrieve import USABLE_MODALITIES, find_series, retrieve_all
    from medssl.io.dicomweb.service import connect

    place = parse_address(address)
    service = connect(place.url)
    folder = private_dir(out)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    return retrieve_all(service, find_series(service, place, USABLE_MODALITIES), folder / "dicomweb", on_progress)


def _list_remote(address: str) -> str:
    """Returns a line for each series of an address, with a pseudonym of its patient."""
    from medssl.data.ingest.source import make_pseudonym
    from medssl.io.dicomweb.address import parse_address
    from medssl.io.dicomweb.retrieve import USABLE_MODALITIES, find_series
    from medssl.io.dicomweb.service import connect

    place = parse_address(address)
    series = find_series(connect(place.url), place, USABLE_MODALITIES)
    lines = [f"{make_pseudonym(s.patient)}  {s.modality:<8}  {len(s.instances):>5} files" for s in series]
    studies, files = len({s.study for s in series}), sum(len(s.instances) for s in series)
    return "\n".join(["patient       modality", *lines, f"{len(series)} series of {studies} studies, {files} files"])


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl ingest", description=__doc__)
    parser.add_argument(
        "scans",
        help="folder of DICOM, NIfTI, MGZ, NRRD or MHA files; the layouts of Decathlon, nnU-Net, BIDS, BraTS, KiTS, "
        "TotalSegmentator, MONAI Label and 3D Slicer are known. Or studies of an archive: "
        "dicomweb+https://HOST/PATH?PatientID=ID",
    )
    parser.add_argument("--out", type=Path, metavar="STORE", help="folder of the store; an existing store is extended")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would become a case, and what is refused; write nothing"
    )
    _add_layout_options(parser)
    parser.add_argument("--follow-links", action="store_true", help="read the files that symbolic links point to")
    parser.add_argument(
        "--structures", type=Path, metavar="YAML", help="which structures of RTSTRUCT and SEG become which classes"
    )
    parser.add_argument("--spacing", default="auto", help="auto (the median), native, or X,Y,Z in mm")
    parser.add_argument(
        "--window-hu",
        metavar="LOW,HIGH",
        help="CT values mapped to 0 and 1, or auto (fitted to split train); default -1000,1000",
    )
    parser.add_argument(
        "--normalization",
        metavar="FOLDER",
        help="intensity normalization of another store or run, or auto (fitted to split train, CT and MR)",
    )
    parser.add_argument("--split-fractions", help="fractions of the patients, for example train=0.7,val=0.1,test=0.2")
    parser.add_argument("--seed", type=int, help="seed of the split (default: 0)")
    parser.add_argument("--resplit", action="store_true", help="redraw the split of an existing store")
    help_text = "organ or lesion, as in target=lesion; other classes get the kind that their names or labels suggest"
    parser.add_argument("--kinds", default="", metavar="NAME=KIND,...", help=help_text)
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="run on the workers of a dask scheduler instead")
    parser.add_argument(
        "--deidentify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep names, paths and free text out of STORE",
    )
    parser.add_argument(
        "--hide-names", action="store_true", help="also pseudonymize the case names of published data sets"
    )
    parser.add_argument(
        "--pseudonym-key", type=Path, metavar="FILE", help="file of the secret key (default: STORE.private/key)"
    )
    return parser


def _add_layout_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what the files are and whose."""
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="GLOB",
        help="image files, for example '*_ct.nii.gz'; once for each channel. All other files are refused",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="GLOB",
        help="label files with the same text at the * as their image, or a further * for the name of a structure",
    )
    parser.add_argument(
        "--patient", default="", metavar="REGEX", help=r"the patient in the path of an image, for example 'sub-(\w+)'"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="CSV", help="table with columns case, patient, site, age_years, sex"
    )
    parser.add_argument(
        "--case-labels", type=Path, metavar="CSV",
        help="table with columns case (or patient) and label, the class of the whole scan, to classify scans",
    )  # fmt: skip
    parser.add_argument(
        "--select",
        default="auto",
        metavar="VOLUMES",
        help="of a DICOM series of several volumes (echoes, phases, times, b-values): all, first, TAG=VALUE such as "
        "EchoTime=80, or auto: all of up to 8, the first of more",
    )
    parser.add_argument(
        "--allow-gaps", action="store_true", help="interpolate missing slices, and record it in the ledger"
    )
    parser.add_argument(
        "--modality",
        default="auto",
        choices=("auto", "CT", "MR"),
        help="modality of image files; DICOM files record their own",
    )


def _parse_spacing(text: str) -> str | list[float]:
    return text if text in ("auto", "native") else _parse_numbers(text, 3)


def _parse_window(text: str | None) -> str | list[float] | None:
    return text if text in (None, "auto") else _parse_numbers(text, 2)


def _parse_numbers(text: str, count: int) -> list[float]:
    try:
        numbers = [float(v) for v in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise BadInput(f"{text!r}: expected {count} numbers separated by commas")
    return numbers


def _parse_fractions(text: str) -> dict[str, float]:
    try:
        return {name: float(fraction) for name, fraction in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise BadInput(f"--split-fractions {text}: write it as train=0.7,val=0.1,test=0.2") from None

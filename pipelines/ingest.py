"""Turns a folder of scans into a prepared store, a manifest, and a ledger of every file."""

import argparse
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medssl.config import check
from medssl.data.ingest.pipeline import Options, ingest
from medssl.data.store import Card
from medssl.errors import BadInput


def main(argv: list[str]) -> None:
    """Runs `medssl ingest SCANS --out STORE`."""
    asked = _parser().parse_args(argv)
    options = check({
        "spacing_mm": _spacing(asked.spacing), "modality": "" if asked.modality == "auto" else asked.modality,
        "window_hu": _window(asked.window_hu), "recipe": asked.recipe, "workers": asked.workers,
        "shares": asked.shares and _shares(asked.shares), "seed": asked.seed, "resplit": asked.resplit,
        "patients": asked.patients, "scheduler": asked.scheduler, "allow_gaps": asked.allow_gaps,
        "deidentify": asked.deidentify, "hide_names": asked.hide_names, "key": asked.key,
    }, Options, "medssl ingest")  # fmt: skip
    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("cases", total=None, visible=False)

        def watch(done: int, of: int) -> None:
            progress.update(bar, completed=done, total=of, visible=True)

        summary = ingest(asked.scans, asked.out, options, watch)
    print(summary.line())
    for reason, number in summary.reasons():
        print(f"  refused {number}: {reason.encode('utf-8', 'backslashreplace').decode()}")
    if regions := Card.read(asked.out).regions:
        print(f'regions {", ".join(regions)}: finetune with "task.regions={list(regions.values())}" to learn them')
    print(f"{asked.out / 'manifest.csv'}\n{asked.out / 'ledger.csv'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("medssl ingest", description=__doc__)
    parser.add_argument(
        "scans", type=Path, help="a folder with DICOM, NIfTI, NRRD or MHA; Decathlon and nnU-Net layouts too"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STORE", help="the folder of the store; may exist already"
    )
    parser.add_argument("--spacing", default="auto", help="auto (the median), native, or X,Y,Z in mm")
    parser.add_argument(
        "--modality", default="auto", choices=("auto", "CT", "MR"), help="of image files; DICOM says it itself"
    )
    parser.add_argument(
        "--window-hu",
        metavar="LOW,HIGH",
        help="what CT values become 0 and 1, or auto (fitted to split train); -1000,1000 if not said",
    )
    parser.add_argument(
        "--recipe",
        metavar="PLACE",
        help="how values become input: that of a store or a run, or auto (fitted to split train, CT and MR)",
    )
    parser.add_argument("--patients", type=Path, metavar="CSV", help="columns case, patient, site, age_years, sex")
    parser.add_argument("--shares", help="train=0.7,val=0.1,test=0.2 of the patients")
    parser.add_argument("--seed", type=int, help="of the split; 0 if not said")
    parser.add_argument("--resplit", action="store_true", help="draw the split of a store that exists anew")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--allow-gaps", action="store_true", help="interpolate missing slices and record it")
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="a dask scheduler whose workers do it instead")
    parser.add_argument(
        "--deidentify", action=argparse.BooleanOptionalAction, default=True, help="no names, paths, free text in STORE"
    )
    parser.add_argument("--hide-names", action="store_true", help="pseudonyms for cases of published data sets as well")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the secret key; STORE.private/key if not said")
    return parser


def _spacing(text: str) -> str | list[float]:
    return text if text in ("auto", "native") else _numbers(text, 3)


def _window(text: str | None) -> str | list[float] | None:
    return text if text in (None, "auto") else _numbers(text, 2)


def _numbers(text: str, how_many: int) -> list[float]:
    try:
        numbers = [float(v) for v in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != how_many:
        raise BadInput(f"{text!r}: {how_many} numbers with commas between them are needed")
    return numbers


def _shares(text: str) -> dict[str, float]:
    try:
        return {name: float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise BadInput(f"--shares {text}: write it as train=0.7,val=0.1,test=0.2") from None

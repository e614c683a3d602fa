"""Finds cases and places like those of a scan, or clusters of cases: medssl retrieve RUN SCANS CASE --out FOLDER"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medssl.data.ingest.read_source import ScanRef
    from medssl.retrieval.features import FeatureSource


def main(words: list[str]) -> None:
    """Writes tables of the cases, and of places if some are given, and a page with pictures."""
    args = build_parser().parse_args(words)
    if args.show < 0 or not args.tolerance >= 0 or not args.propose >= 0:
        raise BadInput(
            f"--show {args.show} --tolerance {args.tolerance:g} --propose {args.propose:g}: give numbers of at least 0"
        )
    if bool(args.case) == (args.clusters is not None):
        raise BadInput("give either a CASE to compare the others with, or --clusters K")
    from medssl.api import load_encoder
    from medssl.data.ingest.read_source import list_scans_or_all
    from medssl.retrieval.features import FeatureSource
    from medssl.run import Run

    run = Run.open(args.run)
    scans = list_scans_or_all(args.scans, args.split, args.modality)
    features = FeatureSource(load_encoder(run), tuple(args.levels), run.metadata["weights_sha256"], args.features)
    if args.case:
        _search(args, scans, features)
    else:
        _cluster(args, scans, features)


def _search(args: argparse.Namespace, scans: "Sequence[ScanRef]", features: "FeatureSource") -> None:
    """Writes the ranked cases, the place of each case that is most like each given one, and a page with pictures."""
    import numpy as np
    from rich.progress import Progress

    from medssl.files import atomic_folder, write_text
    from medssl.io import nifti
    from medssl.metrics.case_scores import to_csv
    from medssl.retrieval.page import render_page
    from medssl.retrieval.search import find_scan, propose_regions, require_inside, search_scans
    from medssl.volume import Volume

    query = find_scan(scans, args.case)
    scan = query.read()
    voxels_mm = [scan.to_mm(np.array(index)).tolist() for index in args.at_voxel]
    places_mm = [(x, y, z) for x, y, z in [*args.at, *voxels_mm]]
    for place_mm in places_mm:
        require_inside(scan, query.case, place_mm)

    def read(case: str) -> Volume:
        return scan if case == query.case else find_scan(scans, case).read()

    query_places = [(number, query.case, place_mm) for number, place_mm in enumerate(places_mm, 1) if args.propose]
    # First, so that an impossible reach ends the command before the search.
    regions = propose_regions(read, query_places, features, args.propose)
    with atomic_folder(args.out, is_private=True) as part, Progress() as progress:
        task = progress.add_task("scans", total=len(scans) - 1)
        cases, places = search_scans(
            scans, query, places_mm, features, args.tolerance,
            lambda done, total: progress.update(task, completed=done),
        )  # fmt: skip
        write_text(part / "cases.csv", to_csv(cases))
        if places:
            write_text(part / "places.csv", to_csv(places))
        matches = [(row.place, row.case, row.place_mm) for row in places if args.propose and row.rank <= args.show]
        regions |= propose_regions(read, matches, features, args.propose)
        for (number, case), region in regions.items():
            nifti.write(region, part / "proposals" / f"place{number}-{case}.nii.gz")
        page = render_page((query.case, scan), places_mm, cases, places, read, args.show, regions)
        write_text(part / "retrieval.html", page)
    print(args.out / "retrieval.html")


def _cluster(args: argparse.Namespace, scans: "Sequence[ScanRef]", features: "FeatureSource") -> None:
    """Writes the cluster of each case, and a page with pictures of the cases that represent each cluster."""
    from rich.progress import Progress

    from medssl.files import atomic_folder, write_text
    from medssl.metrics.case_scores import to_csv
    from medssl.retrieval.clusters import cluster_cases
    from medssl.retrieval.page import render_clusters
    from medssl.retrieval.search import embed_scans, find_scan

    with atomic_folder(args.out, is_private=True) as part, Progress() as progress:
        task = progress.add_task("scans", total=len(scans))
        names, embeddings = embed_scans(scans, features, lambda done, total: progress.update(task, completed=done))
        cases = cluster_cases(names, embeddings, args.clusters)
        write_text(part / "clusters.csv", to_csv(cases))
        page = render_clusters(cases, lambda case: find_scan(scans, case).read(), args.show)
        write_text(part / "clusters.html", page)
    print(args.out / "clusters.html")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl retrieve", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished pretraining or finetuning")
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("case", nargs="?", default="", help="the id of the case to compare the others with")
    parser.add_argument("--clusters", type=int, metavar="K", help="divide all cases into K clusters, instead of a CASE")
    for option, letters, unit in (("--at", "XYZ", "in mm, RAS+"), ("--at-voxel", "IJK", "as a voxel index from 0")):
        parser.add_argument(
            option, type=float, nargs=3, action="append", default=[], metavar=tuple(letters),
            help=f"a place of the case {unit}; can be repeated",
        )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the tables and the page")
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        default=[],
        help="levels of the encoder, 0 is the finest (default: all but the finest)",
    )
    parser.add_argument(
        "--tolerance", type=float, default=10.0,
        help="largest distance in mm, after the way there and back, of a consistent match (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--propose", type=float, default=0.0, metavar="MM",
        help="propose the region around each place by a normalised cut of the features within MM (default: 0, off)",
    )  # fmt: skip
    parser.add_argument("--features", type=Path, help="a folder that keeps the features for the next call")
    parser.add_argument("--split", default="", help="split of the manifest (default: all)")
    parser.add_argument(
        "--modality", default="", choices=["", "CT", "MR"], help="modality of image files that do not record one"
    )
    parser.add_argument(
        "--show",
        type=int,
        default=5,
        help="matches of a place, and cases of a list or a cluster, on the page (default: 5)",
    )
    return parser

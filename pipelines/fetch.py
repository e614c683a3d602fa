"""Downloads a public data set: medssl fetch hippocampus --out FOLDER"""

import argparse
import logging
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    """Downloads one task of the Medical Segmentation Decathlon, ready for `medssl ingest`."""
    args = build_parser().parse_args(words)
    from medssl.data.public.download import MIRROR, download_dataset
    from medssl.data.public.download_progress import show_download

    with show_download(args.name) as on_progress:
        folder = download_dataset(args.name, args.out, on_progress, args.url or MIRROR, _download_with_monai)
    print(f"{folder}\nnext: medssl ingest {folder} --out store")


def _download_with_monai(url: str, path: Path, md5: str) -> None:
    """Downloads with MONAI, without its log; the caller resumes or reports a failed download."""
    from monai.apps import utils

    logging.getLogger("monai.apps").setLevel(logging.CRITICAL)
    utils.download_url(url, path, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl fetch", description=__doc__)
    parser.add_argument(
        "name",
        help="hippocampus, spleen, heart, prostate, brain, liver, lung, ...",
    )
    parser.add_argument("--out", type=Path, default=Path("data"), help="parent folder of the data set (default: data)")
    parser.add_argument("--url", metavar="URL", help="address of the archives (default: the one MONAI uses)")
    return parser

"""Downloads a public data set: medssl fetch hippocampus --out FOLDER"""

import argparse
import logging
import sys
from pathlib import Path

from monai.apps import utils
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from medssl.data.ingest.download import DECATHLON, MIRROR, fetch


def main(words: list[str]) -> None:
    """Leaves the folder of one task of the Medical Segmentation Decathlon, ready for `medssl ingest`."""
    parser = argparse.ArgumentParser("medssl fetch", description=__doc__)
    parser.add_argument("name", help=", ".join(DECATHLON))
    parser.add_argument("--out", type=Path, default=Path("data"), help="where its folder is put (default: data)")
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help=f"where the archives lie (default: {MIRROR})")
    asked = parser.parse_args(words)
    with Progress(TextColumn(asked.name), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("bytes", total=None, visible=False)

        def watch(have: int, of: int | None) -> None:
            progress.update(bar, completed=have, total=of, visible=True)

        folder = fetch(asked.name, asked.out, watch, asked.mirror, _with_monai)
    print(f"{folder}\nnext: medssl ingest {folder} --out store")


def _with_monai(url: str, path: Path, md5: str) -> None:
    """MONAI's downloader, without its log: what it cannot fetch is told in one line, or fetched nevertheless."""
    logging.getLogger("monai.apps").setLevel(logging.CRITICAL)
    utils.download_url(url, path, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())

"""Downloads a public data set: medssl fetch hippocampus --out FOLDER"""

import argparse
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from medssl.data.fetch import DECATHLON, MIRROR, fetch


def main(words: list[str]) -> None:
    """Leaves the folder of one task of the Medical Segmentation Decathlon, ready for `medssl ingest`."""
    parser = argparse.ArgumentParser("medssl fetch", description=__doc__)
    parser.add_argument("name", help=", ".join(DECATHLON))
    parser.add_argument("--out", type=Path, default=Path("data"), help="where its folder is put (default: data)")
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help=f"where the archives lie (default: {MIRROR})")
    asked = parser.parse_args(words)
    with Progress(TextColumn(asked.name), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("bytes", total=None)

        def watch(have: int, of: int | None) -> None:
            progress.update(bar, completed=have, total=of)

        folder = fetch(asked.name, asked.out, watch, asked.mirror)
    print(f"{folder}\nnext: medssl ingest {folder} --out store")

"""An atlas of scans that show one place, to propagate labels over: medssl atlas STORE/manifest.csv --out FOLDER"""

import argparse
from pathlib import Path

from rich.progress import Progress, TaskID

from medssl.config import check
from medssl.data.registration.parcels import Options, make
from medssl.files import atomic
from medssl.render.figures import png, sheet


def main(words: list[str]) -> None:
    """Leaves a store with the same images, for `medssl finetune`: unlabelled.atlas=FOLDER, or parcels.yaml."""
    parser = argparse.ArgumentParser(prog="medssl atlas", description=__doc__)
    parser.add_argument("manifest", type=Path, help="the manifest.csv of a store; its drawn labels are not looked at")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    parser.add_argument("--parcels", type=int, default=64, help="how many pieces (default: 64)")
    parser.add_argument("--split", default="train", help="whose scans (default: train)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    asked = {"parcels": given.parcels, "split": given.split, "seed": given.seed}
    with Progress() as progress:
        bars: dict[str, TaskID] = {}

        def watch(what: str, done: int, of: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=of)
            progress.update(bars[what], completed=done)

        made = make(given.manifest, given.out, check(asked, Options, "medssl atlas"), watch)
    print(f"scans and atlas: correlation {made.before:.2f} as they lie, {made.after:.2f} registered")
    for name, drawn in {"atlas.png": None, "parcels.png": made.parcels}.items():
        with atomic(given.out / name) as part:
            part.write_bytes(png(sheet(made.atlas, drawn)))
    print(f"{made.manifest}; look at {given.out / 'atlas.png'}")

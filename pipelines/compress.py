"""Makes a store about 50 times smaller, for trainings: medssl compress STORE/manifest.csv --out FOLDER"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a store whose images are numbers of words, and prints what it saves and loses."""
    args = build_parser().parse_args(words)
    from rich.progress import Progress

    from medssl.data.manifest import Manifest
    from medssl.data.storage.compress import compress_store

    manifest = Manifest.read(args.manifest)
    with Progress() as progress:
        task = progress.add_task("cases", total=len(manifest.cases))
        compression = compress_store(
            manifest, args.out, args.cell, args.words, args.stages,
            lambda count, total: progress.update(task, completed=count),
        )  # fmt: skip
    print(f"{args.out}: {compression.describe()}")
    print(f"next: medssl pretrain configs/pretrain/spark.yaml manifest={args.out}/manifest.csv run=runs/spark")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl compress", description=__doc__)
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    parser.add_argument("--cell", type=int, default=4, metavar="N", help="side of a cube in voxels (default: 4)")
    parser.add_argument("--words", type=int, default=256, metavar="N", help="words of a stage (default: 256)")
    parser.add_argument(
        "--stages", type=int, default=2, metavar="N", help="bytes of a cube; more are larger and better (default: 2)"
    )
    return parser

"""Re-reads every file of a store, a run or predictions and lists damaged ones: medssl verify FOLDER"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Prints each damaged file with its remedy; one is an error."""
    args = build_parser().parse_args(words)
    from rich.progress import Progress

    from medssl.data.checks.integrity import verify

    with Progress() as progress:
        bar = progress.add_task("files", total=None)
        checks = verify(
            args.folder, args.workers, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    damaged = [check for check in checks if check.fault]
    for check in damaged:
        print(f"{check.path}: {check.fault}; {check.remedy}")
    if damaged:
        raise BadInput(f"{args.folder}: {len(damaged)} of {len(checks)} files are not as they were written (see above)")
    print(f"{args.folder}: all {len(checks)} files are as they were written")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl verify", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a store, a finished run, or predictions")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    return parser

"""Reads every file of a store, a run or predictions again, and names what is torn or rotten."""

import argparse
from pathlib import Path

from rich.progress import Progress

from medssl.data.checks.integrity import verify
from medssl.errors import BadInput


def main(argv: list[str]) -> None:
    """Runs `medssl verify PLACE`; a file that is not as it was written is an error."""
    parser = argparse.ArgumentParser("medssl verify", description=__doc__)
    parser.add_argument("place", type=Path, help="the folder of a store, of a finished run, or of predictions")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    asked = parser.parse_args(argv)
    with Progress() as progress:
        bar = progress.add_task("files", total=None)
        checked = verify(asked.place, asked.workers, lambda done, of: progress.update(bar, completed=done, total=of))
    faults = [c for c in checked if c.fault]
    for c in faults:
        print(f"{c.path}: {c.fault}; {c.remedy}")
    if faults:
        raise BadInput(f"{asked.place}: {len(faults)} of {len(checked)} files are not as they were written (see above)")
    print(f"{asked.place}: all {len(checked)} files are as they were written")

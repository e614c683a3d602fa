"""Lists, filters and compares runs, and removes unfinished ones: medssl runs FOLDER key=value --compare runs.html"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Prints a line for each run; --compare writes their differences and curves, --prune removes unfinished ones."""
    args = build_parser().parse_intermixed_args(words)
    from medssl.files import write_text
    from medssl.render import runs as table

    folders = [word for word in args.words if "=" not in word] or ["runs"]
    filters = table.parse_filters([word for word in args.words if "=" in word])
    runs = [run for folder in folders for run in table.find_runs(Path(folder)) if run.matches(filters)]
    if not runs:
        raise BadInput(f"{', '.join(folders)}: no run has {', '.join(f'{k}={v}' for k, v in filters.items())}")
    rows = [table.COLUMNS, *(run.row for run in runs)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(table.COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if args.compare:
        write_text(args.compare, table.render_comparison(runs))
        print(f"\n{args.compare}: settings that differ and all curves")
    if args.prune and args.yes:
        print(f"\nremoved: {', '.join(table.prune(runs)) or 'nothing'}")
    elif args.prune:
        unfinished = [run.name for run in runs if run.facts["state"] != "closed"]
        print(
            f"\nunfinished: {', '.join(unfinished) or 'none'}; --prune --yes removes those that no process trains now"
        )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl runs", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="FOLDER|key=value",
        help="folders of runs (default: runs), and settings that the runs must have: kind=finetune train.lr=0.001",
    )  # fmt: skip
    parser.add_argument("--compare", type=Path, metavar="PAGE.html", help="write a page that compares the runs")
    parser.add_argument("--prune", action="store_true", help="list the unfinished runs among them")
    parser.add_argument("--yes", action="store_true", help="with --prune: remove them")
    return parser

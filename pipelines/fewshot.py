"""Compares training methods over numbers of labelled volumes and seeds: medssl fewshot CONFIG.yaml key=value ..."""

import argparse

from medssl import cli
from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Trains and tests arms x numbers of labels x seeds, resumes where it stopped, and prints the table of scores."""
    args = build_parser().parse_args(words)
    from medssl import config

    config.find_file(args.config)  # before torch is imported, which takes seconds
    from rich.console import Console
    from rich.table import Table

    from medssl.fewshot import report
    from medssl.fewshot.sweep import Sweep, require_measured, run_sweep
    from medssl.metrics.statistics import small_sample_warning

    settings = config.read(args.config, args.overrides, Sweep)
    rows, failures = run_sweep(settings, lambda message: print(message, flush=True))
    if not rows:
        raise BadInput(f"no cell could be measured; the first: {next(iter(failures.values()))}")
    main_rows = report.select_main_rows(rows)
    table = Table(*report.column_titles(main_rows[0], settings.reference))
    for row in main_rows:
        table.add_row(*report.format_row(row, settings.reference))
    Console().print(table)
    for note in (report.describe_shared_pretrainings(main_rows), small_sample_warning(main_rows[0].patients)):
        if note:
            print(note)
    print(f"{settings.out / 'report.html'}\n{settings.out / 'table.csv'}\n{settings.out / 'curve.png'}")
    require_measured(failures)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    return cli.config_parser("fewshot", __doc__ or "")

"""Ranks encoders and starts over several tasks by sweeps of few labels: medssl battle CONFIG.yaml key=value ..."""

import argparse

from medssl import cli


def main(words: list[str]) -> None:
    """Runs the sweep of each task, resumes where it stopped, and prints the mean rank of each encoder and start."""
    args = build_parser().parse_args(words)
    from medssl import config

    config.find_file(args.config)  # before torch is imported, which takes seconds
    from rich.console import Console
    from rich.table import Table

    from medssl.data.manifest import Manifest
    from medssl.fewshot import battle
    from medssl.fewshot.sweep import require_measured, run_sweep
    from medssl.fewshot.table import TableRow

    settings = config.read(args.config, args.overrides, battle.Battle)
    sweeps = settings.make_sweeps()
    for sweep in sweeps.values():
        Manifest.read(sweep.manifest)  # before hours of training for another task
    tables: dict[str, list[TableRow]] = {}
    failures: dict[str, str] = {}
    for task, sweep in sweeps.items():
        print(f"task {task}", flush=True)
        tables[task], failed = run_sweep(sweep, lambda message: print(message, flush=True))
        failures |= {f"{task}, {cell}": reason for cell, reason in failed.items()}
    ranks = battle.rank_arms(tables)
    battle.write_ranks(settings.out, ranks, list(sweeps))
    table = Table(*battle.column_titles(ranks[0]))
    for rank in ranks:
        table.add_row(*battle.format_rank(rank))
    Console().print(table)
    print(f"{settings.out / 'report.html'}\n{settings.out / 'ranks.csv'}")
    require_measured(failures)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    return cli.config_parser("battle", __doc__ or "")

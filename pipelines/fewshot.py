"""Compares ways to start with few labels: medssl fewshot CONFIG.yaml key=value ..."""

from rich.console import Console
from rich.table import Table

from medssl import config
from medssl.errors import BadInput
from medssl.fewshot import report as page
from medssl.fewshot.sweep import Sweep, sweep
from medssl.metrics.statistics import caution


def main(words: list[str]) -> None:
    """Trains and tests arms x labels x seeds, going on where it stopped, and prints the table of what they scored."""
    settings = config.command(words, Sweep, __doc__ or "")
    found, failed = sweep(settings, lambda said: print(said, flush=True))
    if not found:
        raise BadInput(f"no cell could be measured; the first: {next(iter(failed.values()))}")
    shown = page.main(found)
    table = Table(*page.heads(shown[0], settings.reference))
    for line in shown:
        table.add_row(*page.row(line, settings.reference))
    Console().print(table)
    if said := caution(shown[0].patients):
        print(said)
    print(f"{settings.out / 'report.html'}\n{settings.out / 'table.csv'}\n{settings.out / 'curve.png'}")
    if failed:
        first = ": ".join(next(iter(failed.items())))
        raise BadInput(f"{len(failed)} cells could not be measured, as {first}; run it again once that is mended")

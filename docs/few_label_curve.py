"""Draws Dice by labelled volumes from the tables of benchmarks.md into pictures: python docs/few_label_curve.py."""

import re
from collections.abc import Iterator
from pathlib import Path

from medssl.fewshot.report import draw_curve
from medssl.fewshot.table import TableRow
from medssl.metrics.statistics import Interval

HERE = Path(__file__).parent
SET, ARMS = "hippocampus", ("scratch", "long scratch", "spark")
ROW = re.compile(r"^\| (\d+) \| ([\w ]+) \| ([\d.]+) \[([\d.]+), ([\d.]+)\] \|.*\| (\d+) \| (\d+) \|$")


def main() -> None:
    """Draws the first table of the set, with the arms that the README speaks of."""
    figure = draw_curve([row for row in _read_rows() if row.arm in ARMS])
    figure.savefig(HERE / "pictures" / "few-labels.png", dpi=130)


def _read_rows() -> Iterator[TableRow]:
    text = (HERE / "benchmarks.md").read_text()
    section = text.partition(f"\n### {SET}\n")[2].partition("\n### ")[0]
    for match in filter(None, map(ROW.match, section.splitlines())):
        labels, arm, score, low, high, seeds, cases = match.groups()
        interval = Interval(float(score), float(low), float(high))
        yield TableRow(arm, int(labels), "all labels", "Dice", int(seeds), int(cases), int(cases), interval)


if __name__ == "__main__":
    main()

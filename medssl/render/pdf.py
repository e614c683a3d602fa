"""PDF: a report of facts, a table and pictures on A4 pages, each of which carries the same notice."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from medssl.errors import Doubt
from medssl.files import atomic

A4 = (8.27, 11.69)
INK, DIM, RULE = "#0f172a", "#64748b", "#cbd5e1"
LEFT, RIGHT, TOP, BOTTOM = 0.07, 0.93, 0.945, 0.075
LINE, FIRST_LINES, LINES, PLATES = 0.0185, 42, 44, 3
LETTERS = 105  # of a line across the page


@dataclass(frozen=True)
class Report:
    """What a report says; `widths` are the columns' shares of the line, `plates` pictures with their captions."""

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    columns: Sequence[str]
    widths: Sequence[float]
    rows: Sequence[Sequence[str]]
    plates: Sequence[tuple[str, Image.Image]] = ()


def write(report: Report, path: Path) -> None:
    """Writes the pages as one file; letters that its font lacks become boxes, which is told."""
    about = {"Title": report.title, "Subject": report.notice}
    with warnings.catch_warnings(record=True) as heard, atomic(path) as part, PdfPages(part, metadata=about) as pdf:
        warnings.filterwarnings("always", "Glyph", UserWarning)
        for page in pages(report):
            pdf.savefig(page)
    if heard:
        warnings.warn(f"{path.name}: its font lacks {len(heard)} letters, which are boxes there", Doubt, stacklevel=2)


def pages(report: Report) -> list[Figure]:
    """The pages: facts and the first rows, further rows, then the pictures."""
    drawn = [*_tables(report), *_pictures(report)]
    for number, page in enumerate(drawn, 1):
        _say(page, LEFT, 0.04, report.notice, color=INK, size=8, weight="bold")
        _say(page, RIGHT, 0.04, f"{number} / {len(drawn)}", color=DIM, size=8, ha="right")
    return drawn


def _tables(report: Report) -> Iterator[Figure]:
    page = _page(report.title, 15)
    y = TOP - 2 * LINE
    for name, value in report.facts:
        _say(page, LEFT, y, name, color=DIM, size=9, va="top")
        _say(page, LEFT + 0.2, y, textwrap.shorten(value, 88, placeholder=" …"), color=INK, size=9, va="top")
        y -= LINE
    lines = list(_lines(report))
    most = max(1, FIRST_LINES - len(report.facts))
    _table(page, report, lines[:most], y - LINE)
    yield page
    for start in range(most, len(lines), LINES):
        page = _page(report.title, 10)
        _table(page, report, lines[start : start + LINES], TOP - 2 * LINE)
        yield page


def _lines(report: Report) -> Iterator[list[str]]:
    """The rows as lines that fit the columns: a long text goes on in the next line."""
    room = [max(4, int(LETTERS * width / sum(report.widths))) for width in report.widths]
    for row in report.rows:
        cells = [textwrap.wrap(cell, letters) for cell, letters in zip(row, room, strict=True)]
        for n in range(max(1, *map(len, cells))):
            yield [cell[n] if n < len(cell) else "" for cell in cells]


def _table(page: Figure, report: Report, lines: Sequence[Sequence[str]], y: float) -> None:
    """The names of the columns, and lines below them; a line with a first cell begins a row."""
    starts = LEFT + (RIGHT - LEFT) * np.concatenate([[0.0], np.cumsum(report.widths)[:-1]]) / sum(report.widths)
    for n, line in enumerate([report.columns, *lines]):
        if line[0] and n:
            page.add_artist(Line2D((LEFT, RIGHT), (y + 0.2 * LINE,) * 2, color=RULE, linewidth=0.5))
        for x, value in zip(starts, line, strict=True):
            _say(page, x, y, value, color=INK if n else DIM, size=8, va="top")
        y -= LINE


def _pictures(report: Report) -> Iterator[Figure]:
    height = (TOP - BOTTOM - 0.03) / PLATES
    for start in range(0, len(report.plates), PLATES):
        page = _page(report.title, 10)
        for n, (caption, image) in enumerate(report.plates[start : start + PLATES]):
            top = TOP - 0.03 - n * height
            _say(page, LEFT, top, caption, color=INK, size=9, va="top")
            axes = page.add_axes((LEFT, top - height + 0.01, RIGHT - LEFT, height - 0.03), anchor="NW")
            axes.imshow(np.asarray(image), interpolation="nearest")
            axes.axis("off")
        yield page


def _page(title: str, size: int) -> Figure:
    page = Figure(figsize=A4)
    _say(page, LEFT, TOP, title, color=INK, size=size, weight="bold")
    return page


def _say(page: Figure, x: float, y: float, words: str, **look: Any) -> None:
    """Words as they are: a dollar sign begins no formula."""
    page.text(x, y, words, parse_math=False, **look)

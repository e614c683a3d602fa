"""Ledger: what became of every input file."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from medssl.files import write_text


@dataclass(frozen=True)
class Row:
    """One input file: used in a case, or refused with the reason; and the doubts that reading it raised."""

    path: str
    status: Literal["used", "refused"]
    case: str = ""
    reason: str = ""
    doubts: str = ""


def refused(files: Iterable[Path], reason: str) -> list[Row]:
    """Rows of files that are refused for one reason."""
    return [Row(str(f), "refused", "", reason) for f in files]


def read(path: Path) -> list[Row]:
    """The rows of a ledger.csv; none where there is no file yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
        rows: list[Any] = list(csv.DictReader(handle))
    return [Row(**row) for row in rows]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the ledger atomically, ordered by path."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f.name for f in fields(Row)])
    writer.writerows(astuple(row) for row in sorted(rows, key=lambda r: r.path))
    write_text(path, out.getvalue())

"""The file ledger: one row for every input file, used or refused."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medssl.data.ingest.source import escape_path, unescape_path
from medssl.errors import as_message
from medssl.files import write_text

COLUMNS = ("path", "status", "case", "reason", "warnings")


@dataclass(frozen=True)
class LedgerRow:
    """One input file.

    Attributes:
        path: The file; a pseudonym in a de-identified store.
        status: Whether the file is part of a case.
        case: The case that the file is part of; empty if there is none.
        reason: Why the file was refused, or what it is used for.
        warnings: What to check about the case.
        public_reason: The reason as the store may show it. Not written to the ledger.
        public_warnings: The warnings as the store may show them. Not written to the ledger.
    """

    path: str
    status: Literal["used", "refused"]
    case: str = ""
    reason: str = ""
    warnings: str = ""
    public_reason: str = ""
    public_warnings: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The values of the columns of a ledger, in plain UTF-8: bytes of file names that are not are escaped."""
        texts = (self.status, self.case, self.reason, self.warnings)
        return escape_path(self.path), *(text if text.isascii() else _to_utf8(text) for text in texts)

    @classmethod
    def from_columns(cls, columns: Mapping[str, str], **values: Any) -> "LedgerRow":
        """Makes a row of the values of its columns."""
        status: Any = columns["status"]
        return cls(
            unescape_path(columns["path"]), status, columns["case"], columns["reason"], columns["warnings"], **values
        )


def _to_utf8(text: str) -> str:
    """Returns a text whose bytes that are not UTF-8 are escaped."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def rejected_rows(files: Iterable[Path], reason: str) -> list[LedgerRow]:
    """Returns the rows of files that are refused for one reason."""
    message = as_message(reason)
    return [LedgerRow(str(f), "refused", "", str(message), public_reason=message.public) for f in files]


def used_rows(files: Iterable[Path], purpose: str) -> list[LedgerRow]:
    """Returns the rows of files that are used but are not part of a case."""
    message = as_message(purpose)
    return [LedgerRow(str(f), "used", "", str(message), public_reason=message.public) for f in files]


def read_ledger(path: Path) -> list[LedgerRow]:
    """Returns the rows of a ledger.csv; none if the file does not exist."""
    return [LedgerRow.from_columns(row) for row in read_table(path)]


def read_table(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file by column, in half the time of `csv.DictReader`; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
        rows = list(csv.reader(handle))
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:] if row]


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> None:
    """Writes the ledger atomically, ordered by path."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.columns for row in sorted(rows, key=lambda r: r.path))
    write_text(path, out.getvalue())

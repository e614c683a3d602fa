"""Reads tables of a user with a row for each case or patient."""

import csv
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import BadInput

KEY_COLUMNS = ("id", "case", "patient")


def read_case_column(table: Path, column: str, keys: Sequence[str] = KEY_COLUMNS) -> tuple[str, dict[str, str]]:
    """Returns the name of the column that names the cases, and the value of each in another column.

    Args:
        table: A table with commas, semicolons or tabs.
        column: The column of the values.
        keys: Columns that may name the cases; the first one there is counts.

    Raises:
        BadInput: It is no table, lacks a column or all rows, or lists a case twice with different values.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            header = handle.readline()
            handle.seek(0)
            rows = list(csv.DictReader(handle, delimiter=max("\t;,", key=header.count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, FileNotFoundError):
            raise BadInput(f"{table}: no such file; give a table") from None
        raise BadInput(f"{table}: cannot be read as a table ({error})") from None
    columns = list(rows[0]) if rows else []
    key = next((name for name in keys if name in columns), None)
    if key is None or column not in columns:
        needed = f"a column {column}" if key else f"a column {' or '.join(keys)}"
        raise BadInput(f"{table}: needs {needed}; its columns are {', '.join(columns) or 'none'}")
    values: dict[str, str] = {}
    for row in rows:
        name, value = (row[key] or "").strip(), (row[column] or "").strip()
        if values.setdefault(name, value) != value:
            raise BadInput(f"{table}: lists {name} twice, as {values[name]!r} and as {value!r}; give each one row")
    return key, values

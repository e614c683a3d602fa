"""Neutralizes text that a spreadsheet would take for a formula, in the CSV files that people open."""

import re
from collections.abc import Mapping
from typing import Any

# A spreadsheet skips leading blanks and control characters, and takes a full-width sign for the plain one.
FORMULA_START = re.compile(r"[\s\x00-\x1f]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def neutralize(value: Any) -> Any:
    """Returns a value of a cell; text that would start a formula gets a quote sign in front, so that it is shown.

    Numbers stay as they are, also as text. See OWASP, "CSV Injection",
    https://owasp.org/www-community/attacks/CSV_Injection.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a lone \r is written unquoted and would end the row
    return f"'{text}" if FORMULA_START.match(text) and not NUMBER.fullmatch(text) else text


def neutralize_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of a table with every cell neutralized."""
    return {name: neutralize(value) for name, value in row.items()}

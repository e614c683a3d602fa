"""Parses dates of the forms 20240302 and 2024-03-02."""

from datetime import date


def parse_date(text: str) -> date | None:
    """Returns the date that a text holds; None if it is not a date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def to_ordinal(text: str) -> int | None:
    """Returns a date as a number that grows by one each day; None if the text is not a date."""
    parsed = parse_date(text)
    return parsed.toordinal() if parsed else None

"""Dates as files write them: 20240302 or 2024-03-02."""

from datetime import date


def day(told: str) -> date | None:
    """The day that a date means; None where it is none."""
    try:
        return date.fromisoformat(told)
    except ValueError:
        return None


def number(told: str) -> int | None:
    """A date as a number, one more each day; None where it is none."""
    made = day(told)
    return made.toordinal() if made else None

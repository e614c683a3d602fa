"""Reports how far a batch of cases is: a bar on a terminal, elsewhere a line in the log for each case."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
log = logging.getLogger(__name__)


def report_progress(
    results: Iterable[T], total: int, is_terminal: bool | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[T]:
    """Yields the results and reports how many there are and how long the others will take.

    Args:
        results: The results, which are computed while they are taken.
        total: Their number.
        is_terminal: Whether a bar is drawn; None looks at the standard error.
        clock: Returns a time in seconds.
    """
    if sys.stderr.isatty() if is_terminal is None else is_terminal:
        yield from track(results, "predicting", total, console=Console(stderr=True))
        return
    start = clock()
    for count, result in enumerate(results, 1):
        yield result
        if total > 1:
            left_s = (clock() - start) / count * (total - count)
            log.info("%d of %d cases, about %s left", count, total, format_duration(left_s))


def format_duration(seconds: float) -> str:
    """Returns a duration in words, for example "3 min" or "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

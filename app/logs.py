"""Logs: what goes wrong is told by kind and place; the words of an error may hold a name, and stay out."""

import logging
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from medssl.errors import Doubt


def nameless() -> None:
    """From here on, this process logs no error's message, no doubt about a file, and no address with its signature."""
    logging.getLogger("uvicorn.access").disabled = True
    warnings.simplefilter("ignore", Doubt)
    logging.setLogRecordFactory(_nameless(logging.getLogRecordFactory()))


def _nameless(before: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def record(*said: Any, **more: Any) -> logging.LogRecord:
        made = before(*said, **more)
        if isinstance(made.exc_info, tuple) and made.exc_info[0]:
            made.exc_text = _told(made.exc_info[0], made.exc_info[2])  # a formatter keeps what is there already
        return made

    return record


def _told(kind: type[BaseException], place: TracebackType | None) -> str:
    return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(place), kind.__name__])

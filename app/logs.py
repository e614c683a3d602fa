"""Keeps patient data out of the logs: an error is logged by its type and place, without its message."""

import logging
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from medssl.errors import InputWarning


def redact_logs() -> None:
    """Stops this process from logging error messages, warnings about input files and signed addresses."""
    logging.getLogger("uvicorn.access").disabled = True
    warnings.simplefilter("ignore", InputWarning)
    logging.setLogRecordFactory(_redact_records(logging.getLogRecordFactory()))


def _redact_records(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Returns a factory of log records with tracebacks that contain no error message."""

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if isinstance(record.exc_info, tuple) and record.exc_info[0]:
            # A formatter uses an existing `exc_text` instead of formatting the exception.
            record.exc_text = _format_traceback(record.exc_info[0], record.exc_info[2])
        return record

    return make_record


def _format_traceback(error_type: type[BaseException], frames: TracebackType | None) -> str:
    return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames), error_type.__name__])

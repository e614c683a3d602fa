"""When a training saves its state and stops before its end: a signal, a time limit or the memory of the machine."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat

from medssl.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
MEMORY_FRACTION = 0.95  # of the memory of the machine or of its container, by default
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class LimitConfig(Settings):
    """When a training saves its state and when it stops early; these settings do not change its result."""

    max_hours: PositiveFloat | None = Field(
        None, description="hours after which the training saves its state and stops; resume=true continues; null is off"
    )
    max_memory_gb: PositiveFloat | None = Field(
        None,
        description="memory of the process and its loaders in GB at which the training saves its state and stops;"
        " null takes 95 % of the memory of the machine or container",
    )
    checkpoint_minutes: PositiveFloat = Field(
        30.0, description="minutes between two checkpoints within an epoch; every epoch ends with one"
    )
    watchdog_minutes: PositiveFloat = Field(
        10.0, description="minutes without progress after which a warning names the stage that does not end"
    )


class StopRequest:
    """Decides whether and why a training should stop; the reasons are checked after every step.

    Args:
        config: Limits on time and memory.
    """

    def __init__(self, config: LimitConfig) -> None:
        self.config = config
        self.start = time.monotonic()
        self.signal: signal.Signals | None = None
        self.on_signal: Callable[[], None] | None = None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, otherwise 75, which means "try again later" (EX_TEMPFAIL of sysexits.h)."""
        return 130 if self.signal == signal.SIGINT else 75

    @property
    def reason(self) -> str:
        """Why the training should stop, or an empty string if it should go on."""
        if self.signal is not None:
            return f"received {self.signal.name}"
        hours = (time.monotonic() - self.start) / 3600
        if self.config.max_hours is not None and hours >= self.config.max_hours:
            return f"limits.max_hours={self.config.max_hours:g} is reached"
        used, limit = read_memory_gb(), self.config.max_memory_gb or MEMORY_FRACTION * read_memory_limit_gb()
        if used >= limit:
            return f"the process uses {used:.1f} GB of memory, the limit is {limit:.1f} GB (limits.max_memory_gb)"
        return ""

    @contextmanager
    def catch_signals(self, on_signal: Callable[[], None]) -> Iterator[None]:
        """Records SIGINT, SIGTERM and SIGUSR1 instead of ending the process while the block runs.

        Args:
            on_signal: Called after a signal was recorded, inside the signal handler.
        """
        self.on_signal = on_signal
        earlier = self.install_handlers()
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def install_handlers(self) -> dict[signal.Signals, Any]:
        """Installs the signal handlers and returns the earlier ones.

        Only the main thread receives signals; in another one, as on a dask worker, nothing is installed.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._handle_signal) for number in SIGNALS}

    def _handle_signal(self, number: int, _: object) -> None:
        """Records the first signal; a second Ctrl-C ends the process."""
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)
        if self.on_signal is not None:
            self.on_signal()


def read_memory_gb() -> float:
    """Returns the resident memory of this process and its child processes in GB; 0 where /proc does not exist."""
    children = [child.pid for child in multiprocessing.active_children()]
    return sum(_read_resident_bytes(pid) for pid in (os.getpid(), *children)) / 2**30


def read_memory_limit_gb() -> float:
    """Returns the memory of the machine, or of the container if that is less, in GB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for path in CGROUP_LIMITS if path.is_file() and (text := path.read_text().strip()).isdecimal()]
    return min([total, *limits]) / 2**30


def _read_resident_bytes(pid: int | None) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # the process has just ended, or this system has no /proc
        return 0

"""What reading a broken file may cost."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


@contextmanager
def bounded(cpu_s: float = 2.0, mib: int = 256) -> Iterator[None]:
    """Fails where what is done within takes longer, children included, or needs more memory at its peak.

    CPU time, as a machine may be busy with other things; whoever waits for ever is caught by the test's own timeout.
    """
    before, began = _resident("VmRSS"), _cpu_s()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    try:
        yield
    finally:
        took, grown = _cpu_s() - began, _resident("VmHWM") - before
        assert took < cpu_s, f"took {took:.1f} s of CPU time"
        assert grown < mib * MIB, f"took {grown // MIB} MiB"


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

"""Limits the CPU time and memory that reading a broken file may take."""

import ctypes
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def limit_resources(cpu_s: float = 2.0, mib: int = 256) -> Iterator[None]:
    """Fails if the block takes more CPU time, child processes included, or more memory at its peak.

    CPU time does not depend on how busy the machine is; a block that waits for ever is stopped by the test's timeout.
    """
    start_memory, start_s = _read_memory("VmRSS"), _read_cpu_s()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    try:
        yield
    finally:
        used_s, used_bytes = _read_cpu_s() - start_s, _read_memory("VmHWM") - start_memory
        assert used_s < cpu_s, f"took {used_s:.1f} s of CPU time"
        assert used_bytes < mib * MIB, f"took {used_bytes // MIB} MiB"


class _HeapStatistics(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def measure_heap() -> int:
    """Returns the bytes of the heap that are in use, which a fragmented heap does not blur."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs mallinfo2 of glibc 2.33")
    libc.mallinfo2.restype = _HeapStatistics
    statistics = libc.mallinfo2()
    return statistics.uordblks + statistics.hblkhd


def _read_cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _read_memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

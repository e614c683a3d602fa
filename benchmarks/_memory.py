"""The peak memory of a process."""

from pathlib import Path


def read_peak_mb() -> float:
    """Returns the peak memory of this process; `ru_maxrss` would include that of the process that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024

"""What a training takes of a machine: time, processor and device hours, memory."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from medssl.run import Run


@contextmanager
def spending(run: Run) -> Iterator[None]:
    """Notes in the run what was spent within, however it ends; a resumed run adds to what it spent before."""
    began, worked = time.monotonic(), _processor_s()
    try:
        yield
    finally:
        seconds, hours = time.monotonic() - began, (_processor_s() - worked) / 3600
        run.note(spent=_added(run.card.get("spent", {}), seconds, hours))


def _added(before: dict[str, Any], seconds: float, cpu_hours: float) -> dict[str, Any]:
    cuda = torch.cuda.is_initialized() and torch.cuda.max_memory_allocated() > 0
    peak_gb = torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident_gb()
    return {
        "seconds": round(before.get("seconds", 0.0) + seconds, 1),
        "cpu_hours": round(before.get("cpu_hours", 0.0) + cpu_hours, 4),
        "gpu_hours": round(before.get("gpu_hours", 0.0) + cuda * seconds / 3600, 4),
        "peak_memory_gb": round(max(before.get("peak_memory_gb", 0.0), peak_gb), 2),
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }


def _processor_s() -> float:
    """Of this process and of the loader's workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _resident_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

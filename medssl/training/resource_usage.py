"""Measures what a training uses of a machine: wall time, CPU and GPU hours, memory."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from medssl.nn.collectives import count_processes
from medssl.run import Run
from medssl.training.processes.agreement import is_main_process


@contextmanager
def track_resources(run: Run) -> Iterator[None]:
    """Records the resources used inside the context in run.json, also after an error; a resumed run adds to them.

    Processes that train together do so in step, so that the hours of the main one count for each of them.
    """
    if not is_main_process():
        yield
        return
    start, cpu_start = time.monotonic(), _cpu_seconds()
    try:
        yield
    finally:
        seconds = time.monotonic() - start
        cpu_hours = count_processes() * (_cpu_seconds() - cpu_start) / 3600
        run.update_metadata(resource_usage=_add_usage(run.metadata.get("resource_usage", {}), seconds, cpu_hours))


def _add_usage(previous: dict[str, Any], seconds: float, cpu_hours: float) -> dict[str, Any]:
    """Returns the previous usage of a run plus this part of it."""
    cuda = torch.cuda.is_initialized() and torch.cuda.max_memory_allocated() > 0
    peak_gb = torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident_memory_gb()
    return {
        "seconds": round(previous.get("seconds", 0.0) + seconds, 1),
        "cpu_hours": round(previous.get("cpu_hours", 0.0) + cpu_hours, 4),
        "gpu_hours": round(previous.get("gpu_hours", 0.0) + cuda * count_processes() * seconds / 3600, 4),
        "peak_memory_gb": round(max(previous.get("peak_memory_gb", 0.0), peak_gb), 2),
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of its terminated child processes, such as loader workers."""
    usages = [resource.getrusage(target) for target in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _resident_memory_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

"""Records where a training ran: host, processor, threads and the versions of all packages."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from medssl.run import Run


def describe_environment() -> dict[str, Any]:
    """Returns what the bits of a training depend on besides code, data and settings."""
    packages = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": _read_cpu_name(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
    }


def record_environment(run: Run) -> None:
    """Adds the current environment to run.json, unless the run was started or last resumed in the same one."""
    environments = run.metadata.get("environments", [])
    current = describe_environment()
    if environments[-1:] != [current]:
        run.update_metadata(environments=[*environments, current])


def find_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns which parts of two environments differ, with both values; only differing packages are named."""
    names = [name for name in first if name != "packages" and first[name] != second.get(name)]
    texts = [f"{name} {first[name]} and {second.get(name)}" for name in names]
    old, new = first.get("packages", {}), second.get("packages", {})
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return texts + [f"{name} {old.get(name, 'absent')} and {new.get(name, 'absent')}" for name in changed]


def _read_cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

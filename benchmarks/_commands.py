"""Runs medssl commands for the benchmarks that train: what lies there already is not made again."""

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STATE_COST = """
import sys, time
from pathlib import Path
from medssl.cli import run
code = run(sys.argv[1], sys.argv[2:])
print(time.process_time(), Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""

# A warning of a plan goes on in the next line of its comment.
WARNING = re.compile(r"warning(?: in \d+ cases?)?: (.*?)(?=\n(?:# warning|# the store|[^#]|$))", re.DOTALL)


@dataclass(frozen=True)
class Cost:
    """What a command took in one process of one thread.

    Attributes:
        cpu_s: CPU time.
        wall_s: Wall time.
        peak_bytes: Peak memory.
        warnings: The warnings that it printed.
    """

    cpu_s: float
    wall_s: float
    peak_bytes: int
    warnings: tuple[str, ...]


def make(made: Path, words: str) -> None:
    """Runs `medssl WORDS` unless `made` exists."""
    if not made.exists():
        run(words)


def run(words: str) -> None:
    """Runs `medssl WORDS`; where it fails, the benchmark ends with the command's last line."""
    print(f"medssl {words}", file=sys.stderr, flush=True)
    process = subprocess.run([sys.executable, "-m", "medssl.cli", *shlex.split(words)], capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"medssl {words}: {(process.stderr.strip().splitlines() or ['no reason told'])[-1]}")


def measure(words: str) -> Cost:
    """Runs `medssl WORDS`, and returns what it took.

    The process states its own peak, since what the system counts for a child includes the memory of its parent.
    """
    command, start = [sys.executable, "-c", STATE_COST, *shlex.split(words)], time.monotonic()
    process = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"medssl {words}: {(process.stderr.strip().splitlines() or ['no reason told'])[-1]}")
    cpu_s, peak_kb = process.stdout.split()[-2:]
    texts = dict.fromkeys(WARNING.findall(f"{process.stdout}\n{process.stderr}\n"))
    warnings = (" ".join(text.replace("\n#", " ").split()) for text in texts)
    return Cost(float(cpu_s), time.monotonic() - start, int(peak_kb) * 1024, tuple(warnings))

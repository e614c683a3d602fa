"""Runs medssl commands for the benchmarks that train: what lies there already is not made again."""

import shlex
import subprocess
import sys
from pathlib import Path


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

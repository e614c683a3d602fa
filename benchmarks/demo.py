"""The demo from nothing: how long it takes, how much memory, and what it found.

usage: python -m benchmarks.demo [FOLDER]; what the demo wrote is kept in FOLDER.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time


def main(out: str = "") -> None:
    """Runs `medssl demo` once, and prints its figures and its last lines."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [sys.executable, "-m", "medssl.cli", "demo", "--out", out or f"{folder}/demo"]
        process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
        minutes = (time.monotonic() - began) / 60
    if process.returncode:
        sys.exit(process.stderr.strip().splitlines()[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (peak.ru_utime + peak.ru_stime) / 60
    print("| minutes (at most 8) | CPU minutes | peak memory of a process, GB (at most 6) |\n|---|---|---|")
    print(f"| {minutes:.1f} | {cpu:.1f} | {peak.ru_maxrss / 2**20:.1f} |\n")
    beginnings = ("organs,", "difference", "Pretraining did", "nodules,")
    rows = [row for row in process.stdout.splitlines() if row.startswith(beginnings)]
    print("\n".join(f"    {row}" for row in rows))
    print("\nMinutes depend on what else runs; the CPU minutes are those of one free core.")


if __name__ == "__main__":
    main(*sys.argv[1:])

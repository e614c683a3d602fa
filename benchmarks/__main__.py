"""Runs benchmarks and writes what they print into docs/benchmarks.md: python -m benchmarks [NAME ...] [--OPTION ...]"""

import ast
import os
import platform
import re
import subprocess
import sys
from datetime import date
from itertools import takewhile
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
LONG = (
    "assist",
    "compiled",
    "compression",
    "demo_seeds",
    "ensembles",
    "estimates",
    "fewshot",
    "first_hour",
    "hippocampus",
    "ingest_cases",
    "ingest_changes",
    "installs",
    "joint",
    "leak_traces",
    "losses",
    "methods",
    "nodules",
    "plan",
    "probes",
    "shortcuts",
    "soak",
    "suggest",
    "synthetic",
    "targets",
)  # run when named
HEAD = f"""# Benchmarks
Every figure is what the command above it printed, on the day and machine it names; `make bench` runs them again
(`make bench ARGS=crops` one of them), all but the long ones: {", ".join(LONG)}.
The machines are shared and noisy: read ratios, not seconds.
"""


def main(words: list[str]) -> None:
    """One section a script; a script that fails keeps its old section and is named at the end.

    Args:
        words: The names of the scripts, and options for them from the first word on that begins with `--`.
    """
    names = list(takewhile(lambda word: not word.startswith("--"), words))
    options = words[len(names) :]
    names_of_short_ones = sorted(p.stem for p in HERE.glob("[a-z]*.py") if p.stem not in LONG)
    failed = []
    for name in names or names_of_short_ones:
        print(f"benchmark {name} ...", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        process = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
        if process.returncode:
            failed.append(f"{name}: {(process.stderr.strip().splitlines() or ['no reason told'])[-1]}")
        else:
            _put(" ".join([name, *options]), process.stdout.strip())
    print("\n".join([str(PAGE), *failed]))
    sys.exit(bool(failed))


def _put(command: str, printed: str) -> None:
    """Replaces the script's section, which lies between two marks, or adds it at the end."""
    name = command.partition(" ")[0]
    about = (ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name).partition("\n")[0]
    section = (
        f"<!-- {name} -->\n## {about}\n`python -m benchmarks.{command}` on {date.today()}, {_machine()}\n\n"
        f"{printed}\n<!-- /{name} -->\n"
    )
    page = PAGE.read_text() if PAGE.exists() else HEAD
    old = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->\n", re.DOTALL)
    page = old.sub(lambda _: section, page) if old.search(page) else f"{page}\n{section}"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)


def _machine() -> str:
    cpu = next((row for row in _lines("/proc/cpuinfo") if row.startswith("model name")), platform.machine())
    memory = next((int(row.split()[1]) / 2**20 for row in _lines("/proc/meminfo")), 0)
    load = f"load {os.getloadavg()[0]:.1f} when it ended"
    return f"{os.cpu_count()} cores of {cpu.partition(':')[2].strip() or cpu}, {memory:.0f} GiB, {load}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main(sys.argv[1:])

"""Workers may die; the jobs of the others are done nevertheless."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medssl.data import worker_pool as pool

ROOT = Path(__file__).parents[2]
KILLER = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done_once(workers):
    jobs = [f"{n}+1" for n in range(5)]
    assert sorted(pool.run(jobs, eval, str, workers)) == [(f"{n}+1", n + 1) for n in range(5)]


@pytest.mark.slow
def test_a_job_that_kills_its_process_is_told_apart_from_its_neighbours():
    jobs = ["1", "2", KILLER, "3", "4", "5", "6"]
    done = dict(pool.run(jobs, eval, lambda job: "dead", 2))
    assert done == {"1": 1, "2": 2, KILLER: "dead", "3": 3, "4": 4, "5": 5, "6": 6}


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(pool.run(["1/0"], eval, str, 1))


def soon(true):
    return next((True for _ in range(200) if true() or time.sleep(0.1)), False)


def test_workers_of_a_killed_program_end(tmp_path):
    note, script = tmp_path / "pid", tmp_path / "main.py"
    job = f"__import__('pathlib').Path({str(note)!r}).write_text(str(__import__('os').getpid()))"
    script.write_text(
        f"from medssl.data import pool\nimport time\nif __name__ == '__main__':\n"
        f"    for _ in pool.run([{job!r}, 'None'], eval, str, 1):\n        time.sleep(60)\n"
    )
    main = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert soon(lambda: note.exists() and note.read_text())
    worker = Path("/proc", note.read_text())
    if not worker.parent.exists():
        pytest.skip("needs /proc to see processes")
    os.kill(main.pid, signal.SIGKILL)
    main.wait()
    assert soon(lambda: not worker.exists())

"""Workers may die without any effect on the other jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medssl import cli
from medssl.data import worker_pool

ROOT = Path(__file__).parents[2]
KILLER = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done_once(workers):
    jobs = [f"{n}+1" for n in range(5)]
    assert sorted(worker_pool.run_jobs(jobs, eval, str, workers)) == [(f"{n}+1", n + 1) for n in range(5)]


@pytest.mark.parametrize("words", ["atlas no.csv --out out", "predict run no.csv --out out", "verify no"])
def test_a_negative_number_of_workers_is_refused_before_anything_is_read(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, *rest = words.split()
    assert cli.run(command, [*rest, "--workers", "-1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "workers: -1 processes; give 0" in line and "or more" in line and not any(tmp_path.iterdir())


class ImportingName(str):
    """The name of a module; another one is imported while names are compared with it."""

    def startswith(self, *_):
        sys.modules["imported_meanwhile"] = sys
        return False


def test_a_module_that_another_thread_imports_does_not_stop_the_jobs(monkeypatch):
    monkeypatch.delitem(sys.modules, "imported_meanwhile", raising=False)
    monkeypatch.setitem(sys.modules, ImportingName("importing"), sys)
    assert list(worker_pool.run_jobs(["1+1"], eval, str, 1)) == [("1+1", 2)]
    assert sys.modules.pop("imported_meanwhile") is sys


@pytest.mark.slow
def test_a_job_that_kills_its_process_does_not_affect_the_others():
    jobs = ["1", "2", KILLER, "3", "4", "5", "6"]
    results = dict(worker_pool.run_jobs(jobs, eval, lambda job: "dead", 2))
    assert results == {"1": 1, "2": 2, KILLER: "dead", "3": 3, "4": 4, "5": 5, "6": 6}


def test_an_exception_in_a_job_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(worker_pool.run_jobs(["1/0"], eval, str, 1))


def becomes_true(condition):
    return next((True for _ in range(200) if condition() or time.sleep(0.1)), False)


def test_workers_of_a_killed_program_exit(tmp_path):
    pid_file, script = tmp_path / "pid", tmp_path / "main.py"
    job = f"__import__('pathlib').Path({str(pid_file)!r}).write_text(str(__import__('os').getpid()))"
    script.write_text(
        f"from medssl.data import worker_pool\nimport time\nif __name__ == '__main__':\n"
        f"    for _ in worker_pool.run_jobs([{job!r}, 'None'], eval, str, 1):\n        time.sleep(60)\n"
    )
    main = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert becomes_true(lambda: pid_file.exists() and pid_file.read_text())
    worker = Path("/proc", pid_file.read_text())
    if not worker.parent.exists():
        pytest.skip("needs /proc to see processes")
    os.kill(main.pid, signal.SIGKILL)
    main.wait()
    assert becomes_true(lambda: not worker.exists())

"""A training on a real SLURM of one node is queued again when it is pre-empted, and goes on in its run."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medssl import cli
from medssl.run import Run
from tests.helpers.toy_training import write_store

NUM_STEPS = 80
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP
"""
SETTINGS = (
    "encoder.channels=[4,8]", "encoder.strides=[1,2]", "patch_size=[16,16,16]", "train.epochs=4",
    "train.steps_per_epoch=20", "train.batch_size=2", "train.num_workers=0",
)  # fmt: skip


def start_server(*words):
    process = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if process.returncode:
        pytest.skip(f"{words[0]} does not start here: {process.stderr.strip()[-200:]}")


def pick_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a SLURM of one node on loopback, whose jobs find `medssl` on the path."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing or os.geteuid():
        pytest.skip(f"needs root and SLURM (apt-get install slurm-wlm munge); missing: {', '.join(missing) or 'root'}")
    folder = tmp_path / "slurm"
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, ports=pick_ports(2)))
    (folder / "cgroup.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    options = [f"--{name}={folder / file}" for name, file in (files | {"seed-file": "munge.seed"}).items()]
    start_server("munged", "--force", *options)
    try:
        start_server("slurmctld", "-c")
        start_server("slurmd", "-c")
        yield folder
        subprocess.run(["scancel", "1"], timeout=30, check=False)
        time.sleep(2)
        subprocess.run(["scontrol", "shutdown"], timeout=30, check=False)
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            if (folder / name).is_file():
                subprocess.run(["kill", (folder / name).read_text().strip()], capture_output=True, check=False)


def wait_for(is_true, seconds, log):
    for _ in range(seconds * 4):
        if is_true():
            return
        time.sleep(0.25)
    pytest.fail(log.read_text() if log.is_file() else "the job has no log")


def count_steps(run):
    """The number of logged rows of a run."""
    path = run / "logs" / "metrics.csv"
    return len(path.read_text().splitlines()) if path.is_file() else 0


@pytest.mark.slow
def test_a_preempted_training_goes_on_in_its_run(tmp_path, slurm):
    write_store(tmp_path / "store")
    script, run = tmp_path / "job.sh", tmp_path / "run"
    log = script.with_suffix(".log")
    words = [
        "pretrain",
        "configs/pretrain/mae.yaml",
        f"manifest={tmp_path}/store/manifest.csv",
        f"run={run}",
        *SETTINGS,
    ]
    assert cli.run("slurm", [*words, "--gpus", "0", "--cpus", "1", "--requeue", "--script", str(script)]) == 0
    wait_for(lambda: count_steps(run) > 1, 120, log)
    subprocess.run(["scontrol", "requeue", "1"], check=True)
    wait_for(lambda: "is saved" in log.read_text(), 60, log)
    subprocess.run(["scontrol", "update", "JobId=1", "StartTime=now"], check=False)
    wait_for(lambda: Run(run).is_finished, 120, log)
    saved = re.search(r"received SIGTERM; the state after step (\d+) is saved", log.read_text())
    assert saved and "exit code 75" in log.read_text()
    assert f"{NUM_STEPS - int(saved[1])} steps of 2 crops" in log.read_text(), "goes on at the next step"
    with (run / "logs" / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [19, 39, 59, 79], "no epoch is logged twice"

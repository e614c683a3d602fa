"""Trainings under SLURM, with stand-ins for its commands on the path."""

import os
import signal
import subprocess

import pytest

from medssl import cli
from medssl.errors import Stopped
from medssl.training.trainer import train
from tests.helpers.toy_training import SHORT_TRAINING, make_loaders, make_spark, open_run


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with stand-ins for the commands of SLURM, which write down how they are called."""
    commands = tmp_path / "bin"
    commands.mkdir()

    def put(name: str, body: str) -> None:
        (commands / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        (commands / name).chmod(0o755)

    put("sbatch", "echo '4711;cluster'")
    put("scontrol", "")
    put("srun", 'while [[ "$1" == --* ]]; do shift; done; exec "$@"')
    put("medssl", "exit 0")
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return put


def read_calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_signal_leaves_nothing_outside_the_run_and_requeues_nothing_by_itself(tmp_path, cluster):
    run, learner = open_run(tmp_path / "run"), make_spark()
    calls = []
    learner.after_step = lambda: calls.append(1) or (len(calls) == 5 and os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Stopped, match="received SIGUSR1; the state after step 5 is saved"):
        train(learner, make_loaders(), run, SHORT_TRAINING)
    assert not list((tmp_path / "work").iterdir()) and not read_calls(tmp_path)
    other, steps = open_run(tmp_path / "other"), []
    learner = make_spark()
    learner.after_step = lambda: steps.append(1)
    train(learner, make_loaders(), other, SHORT_TRAINING)
    assert len(steps) == SHORT_TRAINING.total_steps


def test_a_script_is_written_and_submitted(tmp_path, cluster, capsys):
    script = tmp_path / "job.sh"
    words = ["pretrain", "a b.yaml", "train.lr=0.1", "--script", str(script), "--time", "1:00:00", "--cpus", "4"]
    assert cli.run("slurm", [*words, "--sbatch=--partition=gpu"]) == 0
    assert "submitted as job 4711" in capsys.readouterr().out
    assert read_calls(tmp_path) == [f"sbatch --parsable {script}"]
    text = script.read_text()
    for line in ("--cpus-per-task=4", "--time=1:00:00", "--partition=gpu", "--signal=USR1@120", "--no-requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "medssl pretrain 'a b.yaml' train.lr=0.1 resume=true" in text


def test_a_training_on_several_nodes_has_a_task_for_each_gpu(tmp_path, cluster, monkeypatch):
    """The tasks get what torchrun would give them; a stand-in for srun starts them one after the other."""
    cluster("scontrol", '[ "$1 $2" = "show hostnames" ] && echo node7 && echo node8')
    tasks = 'shift; for n in 0 1 2 3; do SLURM_PROCID=$n SLURM_LOCALID=$((n % 2)) SLURM_NODEID=$((n / 2)) "$@"; done'
    cluster("srun", tasks)
    cluster("medssl", f'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $*" >> {tmp_path}/tasks')
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7-8]")
    script = tmp_path / "job.sh"
    words = ["pretrain", "a b.yaml", "--gpus", "2", "--nodes", "2", "--script", str(script), "--dry-run"]
    assert cli.run("slurm", words) == 0
    assert subprocess.run(["bash", str(script)], check=False).returncode == 0
    for line in ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in script.read_text()
    settings = "pretrain a b.yaml train.devices=2 train.num_nodes=2 resume=true"
    assert (tmp_path / "tasks").read_text().splitlines() == [f"{n} {n % 2} 4 node7:24711 {settings}" for n in range(4)]
    assert cli.run("slurm", ["fewshot", "a.yaml", "--gpus", "2", "--script", str(script), "--dry-run"]) == 2


@pytest.mark.parametrize(("code", "requeues"), [(75, True), (138, True), (143, True), (0, False), (2, False)])
def test_only_a_training_that_was_stopped_is_queued_again(tmp_path, cluster, code, requeues):
    cluster("medssl", f"exit {code}")
    script = tmp_path / "job.sh"
    assert cli.run("slurm", ["finetune", "a.yaml", "--script", str(script), "--requeue", "--dry-run"]) == 0
    assert subprocess.run(["bash", str(script)], check=False, timeout=60).returncode == code
    assert read_calls(tmp_path)[-2:] == (
        ["medssl finetune a.yaml resume=true", "scontrol requeue 4711"]
        if requeues
        else [
            "srun --ntasks=1 medssl finetune a.yaml resume=true",
            "medssl finetune a.yaml resume=true",
        ]
    )


def test_an_array_shares_the_trainings_of_a_comparison(tmp_path, cluster, monkeypatch, capsys):
    cluster("sbatch", f'for n in 0 1 2; do SLURM_ARRAY_TASK_ID=$n bash "$2" >> {tmp_path}/out; done; echo 4711')
    script = tmp_path / "job.sh"
    assert cli.run("slurm", ["fewshot", "a.yaml", "seeds=[0]", "--array", "3", "--script", str(script)]) == 0
    assert f"submitted as job 4711; log: {tmp_path}/job-*.log" in capsys.readouterr().out
    text = script.read_text()
    assert "#SBATCH --array=0-2\n" in text and f"#SBATCH --output={tmp_path}/job-%a.log\n" in text
    tasks = [call for call in read_calls(tmp_path) if call.startswith("medssl")]
    assert tasks == [f"medssl fewshot a.yaml seeds=[0] part={n} num_parts=3" for n in range(3)]
    for words in (["pretrain", "a.yaml", "--array", "3"], ["fewshot", "a.yaml", "--array", "0"]):
        assert cli.run("slurm", [*words, "--script", str(script), "--dry-run"]) == 2
        assert "only fewshot has several trainings" in capsys.readouterr().err
    assert cli.run("slurm", ["fewshot", "a.yaml", "part=1", "--script", str(script), "--dry-run"]) == 2


def test_the_script_outlives_the_signal_that_stops_its_training(tmp_path, cluster):
    cluster("medssl", "trap 'exit 75' TERM; kill -TERM $PPID; touch ready; for n in {1..600}; do sleep 0.1; done")
    script = tmp_path / "job.sh"
    assert cli.run("slurm", ["finetune", "a.yaml", "--script", str(script), "--requeue", "--dry-run"]) == 0
    process = subprocess.Popen(["bash", str(script)])
    try:
        while not (tmp_path / "work" / "ready").exists():
            assert process.poll() is None
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(children.stdout.split()[0]), signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    finally:
        process.kill()
    assert read_calls(tmp_path)[-1] == "scontrol requeue 4711"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.devices=2"], "the script sets them; give --gpus and --nodes"),
        (["resume=false"], "the script sets resume=true itself"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path, cluster, capsys, words, message):
    assert cli.run("slurm", ["pretrain", "a.yaml", "--script", str(tmp_path / "job.sh"), *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "job.sh").exists()


def test_without_sbatch_the_script_is_left_to_submit(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.run("slurm", ["pretrain", "a.yaml", "--script", str(tmp_path / "job.sh")]) == 2
    assert "is written, but there is no sbatch on this machine" in capsys.readouterr().err
    assert (tmp_path / "job.sh").exists()

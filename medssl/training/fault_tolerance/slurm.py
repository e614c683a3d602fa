"""Writes and submits SLURM scripts of trainings that save before the job ends and continue when it is requeued."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import BadInput
from medssl.files import write_text

# One task for each process of a training. srun passes the signals on to them; the shell ignores them, so that it lives
# to requeue the job.
TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=USR1@{grace_s}
#SBATCH --output={log}
#SBATCH --open-mode=append
{extra}
trap : TERM USR1
{join}srun --ntasks={num_tasks} {command} &
training=$!
# A signal ends `wait` early; once the training has ended, `wait` returns its exit code.
while kill -0 $training 2> /dev/null; do
  wait $training
done
wait $training
code=$?
{requeue}exit $code
"""
# What torchrun would set; `medssl` joins the tasks into one training.
JOIN = """export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
"""
TASK = """bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID GROUP_RANK=$SLURM_NODEID WORLD_SIZE=$SLURM_NTASKS
  exec "$@"' task """
# 75: it saved its state. 138, 143: SIGUSR1 or SIGTERM came before it could save one.
REQUEUE = """if [ $code -eq 75 ] || [ $code -eq 138 ] || [ $code -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
"""


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks for.

    Attributes:
        gpus: Number of GPUs of each node, with a process for each of them.
        nodes: Number of nodes.
        cpus: Number of cores of each process.
        time: Time limit in SLURM's form, HH:MM:SS or D-HH:MM:SS.
        grace_s: Seconds before the end at which the training gets the signal to save.
        requeue: Whether a job that was stopped with its state saved is queued again.
        num_parts: Number of jobs of an array that share the trainings of a few-label comparison; 1 for no array.
        extra: Further options of sbatch, such as "--partition=gpu".
    """

    gpus: int = 1
    nodes: int = 1
    cpus: int = 8
    time: str = "24:00:00"
    grace_s: int = 120
    requeue: bool = False
    num_parts: int = 1
    extra: tuple[str, ...] = ()


def write_script(path: Path, command: str, config: str, overrides: list[str], options: SlurmOptions) -> None:
    """Writes the script of a job that runs `medssl COMMAND CONFIG key=value ...`.

    Args:
        path: The script to write; the log of the job lies in the same folder.
        command: "pretrain", "finetune" or "fewshot".
        config: The config file.
        overrides: Settings of the form key=value.
        options: What the job asks for.

    Raises:
        BadInput: A few-label comparison asks for more than one GPU, another training for an array, or a setting is one
            that the script makes.
    """
    num_tasks = options.nodes * max(1, options.gpus)
    if num_tasks > 1 and command == "fewshot":
        raise BadInput(
            f"--gpus {options.gpus} --nodes {options.nodes}: each training of fewshot uses one GPU; give 1, and"
            " --array for several jobs"
        )
    if options.num_parts < 1 or (options.num_parts > 1 and command != "fewshot"):
        raise BadInput(
            f"--array {options.num_parts}: only fewshot has several trainings, which 1 or more jobs can share"
        )
    if any(override.startswith(("train.devices=", "train.num_nodes=")) for override in overrides):
        raise BadInput("train.devices, train.num_nodes: the script sets them; give --gpus and --nodes")
    if any(override.startswith(("part=", "num_parts=")) for override in overrides):
        raise BadInput("part, num_parts: the script sets them; give --array")
    if any(override.startswith("resume=") for override in overrides):
        raise BadInput("resume=...: the script sets resume=true itself; leave it out")
    resume = [] if command == "fewshot" else ["resume=true"]
    processes = [f"train.devices={max(1, options.gpus)}", f"train.num_nodes={options.nodes}"] if num_tasks > 1 else []
    words = shlex.join(["medssl", command, config, *overrides, *processes, *resume])
    extra = [*options.extra, *(["--requeue"] if options.requeue else ["--no-requeue"])]
    log = path.with_suffix(".log")
    if options.num_parts > 1:
        words += f' part="$SLURM_ARRAY_TASK_ID" num_parts={options.num_parts}'
        extra.append(f"--array=0-{options.num_parts - 1}")
        log = path.with_name(f"{path.stem}-%a.log")
    text = TEMPLATE.format(
        name=f"medssl-{command}", nodes=options.nodes, gpus=options.gpus, tasks=max(1, options.gpus),
        num_tasks=num_tasks, cpus=options.cpus, time=options.time, grace_s=options.grace_s,
        log=log, extra="\n".join(f"#SBATCH {line}" for line in extra),
        join=JOIN if num_tasks > 1 else "", command=(TASK if num_tasks > 1 else "") + words,
        requeue=REQUEUE if options.requeue else "",
    )  # fmt: skip
    write_text(path, text)


def submit(path: Path) -> str:
    """Submits a script and returns the number of the job.

    Raises:
        BadInput: There is no sbatch here, or it refuses the script.
    """
    try:
        process = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: is written, but there is no sbatch on this machine; submit it on a cluster") from None
    except subprocess.CalledProcessError as error:
        raise BadInput(f"{path}: sbatch refuses it: {' '.join(error.stderr.split())}") from None
    return process.stdout.strip().partition(";")[0]

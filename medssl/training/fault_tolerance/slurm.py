"""Writes and submits SLURM scripts of trainings that save before the job ends and continue when it is requeued."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import BadInput
from medssl.files import write_text

# srun passes the signals on to the training; the shell ignores them, so that it lives to requeue the job.
TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=USR1@{grace_s}
#SBATCH --output={log}
#SBATCH --open-mode=append
{extra}
trap : TERM USR1
srun --ntasks=1 {command} &
training=$!
code=143
# A signal ends `wait` early with 143 or 138; the next one returns the exit code of the training.
while [ $code -eq 143 ] || [ $code -eq 138 ]; do
  wait $training
  code=$?
done
{requeue}exit $code
"""
REQUEUE = """if [ $code -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
"""


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks for.

    Attributes:
        gpus: Number of GPUs; a training uses at most one.
        cpus: Number of cores.
        time: Time limit in SLURM's form, HH:MM:SS or D-HH:MM:SS.
        grace_s: Seconds before the end at which the training gets the signal to save.
        requeue: Whether a job that was stopped with its state saved is queued again.
        extra: Further options of sbatch, such as "--partition=gpu".
    """

    gpus: int = 1
    cpus: int = 8
    time: str = "24:00:00"
    grace_s: int = 120
    requeue: bool = False
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
        BadInput: More than one GPU is requested.
    """
    if options.gpus > 1:
        raise BadInput(f"--gpus {options.gpus}: a training uses one GPU; give --gpus 1, and start several jobs instead")
    if any(override.startswith("resume=") for override in overrides):
        raise BadInput("resume=...: the script sets resume=true itself; leave it out")
    resume = [] if command == "fewshot" else ["resume=true"]
    words = shlex.join(["medssl", command, config, *overrides, *resume])
    extra = [*options.extra, *(["--requeue"] if options.requeue else ["--no-requeue"])]
    text = TEMPLATE.format(
        name=f"medssl-{command}", gpus=options.gpus, cpus=options.cpus, time=options.time, grace_s=options.grace_s,
        log=path.with_suffix(".log"), extra="\n".join(f"#SBATCH {line}" for line in extra), command=words,
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

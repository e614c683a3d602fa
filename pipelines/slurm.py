"""Submits a training to SLURM: medssl slurm pretrain CONFIG.yaml key=value ... --script job.sh --requeue"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the script, and submits it unless --dry-run is given."""
    args = build_parser().parse_intermixed_args(words)
    from medssl.training.fault_tolerance.slurm import SlurmOptions, submit, write_script

    options = SlurmOptions(
        args.gpus, args.nodes, args.cpus, args.time, args.grace, args.requeue, args.array, tuple(args.sbatch)
    )
    write_script(args.script, args.training, args.config, args.overrides, options)
    if args.dry_run:
        print(f"{args.script}: written; submit it with: sbatch {args.script}")
    else:
        logs = (
            args.script.with_suffix(".log") if args.array == 1 else args.script.with_name(f"{args.script.stem}-*.log")
        )
        print(f"{args.script}: submitted as job {submit(args.script)}; log: {logs}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl slurm", description=__doc__)
    parser.add_argument("training", choices=["pretrain", "finetune", "fewshot"], help="the command to run")
    parser.add_argument("config", metavar="CONFIG.yaml", help="its config")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="its settings")
    parser.add_argument("--script", type=Path, default=Path("medssl-job.sh"), help="script to write")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each node, a process for each (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes (default: 1)")
    parser.add_argument("--cpus", type=int, default=8, help="cores of each process (default: 8)")
    parser.add_argument("--time", default="24:00:00", help="time limit of the job (default: 24:00:00)")
    parser.add_argument(
        "--grace", type=int, default=120, help="seconds before that limit at which the training saves (default: 120)"
    )
    parser.add_argument(
        "--requeue", action="store_true",
        help="queue the job again when it was pre-empted or its time was over, until the training is finished",
    )  # fmt: skip
    parser.add_argument(
        "--array", type=int, default=1, metavar="N", help="fewshot: share its trainings among N jobs (default: 1)"
    )
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="further option: --sbatch=--partition=gpu"
    )
    parser.add_argument("--dry-run", action="store_true", help="write the script only")
    return parser

"""Learns a task from a few labelled volumes: medssl finetune CONFIG.yaml key=value ..."""

from medssl import config
from medssl.training.finetune import Finetune, finetune
from medssl.training.trainer import told


def main(words: list[str]) -> None:
    """Leaves a closed run that `medssl predict RUN SCANS` uses."""
    settings = config.command(words, Finetune, __doc__ or "")
    run = finetune(settings)
    print(f"{run.path}: {told(run.card['scores'])}")
    print(f"next: medssl predict {run.path} {settings.manifest} --out predictions")

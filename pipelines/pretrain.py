"""Learns an encoder from unlabelled volumes: medssl pretrain CONFIG.yaml key=value ..."""

from medssl import config
from medssl.training.fit import told
from medssl.training.pretraining import Pretrain, pretrain


def main(words: list[str]) -> None:
    """Leaves a closed run, which `medssl finetune ... pretrained=RUN` starts from."""
    settings = config.command(words, Pretrain, __doc__ or "")
    run = pretrain(settings)
    print(f"{run.path}: {told(run.card['scores'])}")
    print(f"next: medssl finetune configs/finetune/segment.yaml manifest={settings.manifest} pretrained={run.path}")

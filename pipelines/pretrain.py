"""Learns an encoder from unlabelled volumes: medssl pretrain CONFIG.yaml key=value ..."""

from medssl import config
from medssl.nn import encoder
from medssl.training.pretrain import Pretrain, pretrain
from medssl.training.trainer import told


def main(words: list[str]) -> None:
    """Leaves a closed run, which `medssl finetune ... pretrained=RUN` starts from."""
    settings = config.command(words, Pretrain, __doc__ or "")
    run = pretrain(settings)
    print(f"{run.path}: {told(run.card['scores'])}")
    begin = f"medssl finetune configs/finetune/segment.yaml manifest={settings.manifest} pretrained={run.path}"
    print(f"next: {begin} {encoder.words(settings.encoder)} run={run.path.with_name('finetuned')}")

"""Learns an encoder from unlabelled volumes: medssl pretrain CONFIG.yaml key=value ..."""

import argparse

from medssl import cli


def main(words: list[str]) -> None:
    """Leaves a finished run, from which `medssl finetune ... pretrained=RUN` starts."""
    args = build_parser().parse_args(words)
    from medssl import config

    config.find_file(args.config)  # before torch is imported, which takes seconds
    from medssl.models.starting_point import adopt_network
    from medssl.training.pretrain import PretrainConfig, pretrain
    from medssl.training.trainer import format_scores

    settings = config.read(args.config, args.overrides, PretrainConfig, adopt_network)
    run = pretrain(settings)
    print(f"{run.path}: {format_scores(run.metadata['scores'])}")
    command = f"medssl finetune configs/finetune/segment.yaml manifest={settings.manifest} pretrained={run.path}"
    print(f"next: {command} run={run.path.with_name('finetuned')}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    return cli.config_parser("pretrain", __doc__ or "")

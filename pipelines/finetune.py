"""Trains segmentation or detection from a few labelled volumes: medssl finetune CONFIG.yaml key=value ..."""

import argparse

from medssl import cli


def main(words: list[str]) -> None:
    """Leaves a finished run for `medssl predict RUN SCANS`."""
    args = build_parser().parse_args(words)
    from medssl import config

    config.find_file(args.config)  # before torch is imported, which takes seconds
    from medssl.models.starting_point import adopt_network
    from medssl.training.finetune import finetune
    from medssl.training.finetune_config import FinetuneConfig
    from medssl.training.trainer import format_scores

    settings = config.read(args.config, args.overrides, FinetuneConfig, adopt_network)
    run = finetune(settings)
    print(f"{run.path}: {format_scores(run.metadata['scores'])}")
    print(f"next: medssl predict {run.path} {settings.manifest} --out predictions")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    return cli.config_parser("finetune", __doc__ or "")

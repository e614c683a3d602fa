"""Writes a finished run as a folder to share, with a model card: medssl publish RUN --out FOLDER"""

import argparse
from pathlib import Path

FORMATS = {"onnx": "add_onnx_file", "pt2": "add_program_file"}


def main(words: list[str]) -> None:
    """Writes a new folder that predicts as the run does and names no case."""
    args = build_parser().parse_args(words)
    from medssl import config
    from medssl.models.export_monai_bundle import add_bundle_files, require_bundle_support
    from medssl.models.model_card import ModelCardFacts
    from medssl.models.portable import export_network
    from medssl.models.publish import publish, read_evaluation
    from medssl.run import Run

    facts = config.read(args.card_facts, (), ModelCardFacts) if args.card_facts else ModelCardFacts()
    run = Run.open(args.run)
    if args.monai:
        require_bundle_support(run)
    add_files = [getattr(export_network, FORMATS[name]) for name in FORMATS if getattr(args, name)]
    publish(run, args.out, facts, read_evaluation(args.evaluation, run) if args.evaluation else None, add_files)
    if args.monai:
        add_bundle_files(args.out)
    model = args.out / "model.onnx" if args.onnx else args.out
    print(f"{args.out}: read README.md; medssl predict {model} SCANS --out predictions")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl publish", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--evaluation", type=Path, help="results of `medssl evaluate` for the model card")
    parser.add_argument("--card-facts", type=Path, help="YAML with title, intended_use, data, limits, ... of the card")
    parser.add_argument("--monai", action="store_true", help="add the files that make the folder a MONAI bundle too")
    parser.add_argument(
        "--onnx", action="store_true",
        help="add model.onnx, which predicts without torch: medssl predict model.onnx SCANS (needs medssl[export])",
    )  # fmt: skip
    parser.add_argument("--pt2", action="store_true", help="add model.pt2, a program for torch.export.load")
    return parser

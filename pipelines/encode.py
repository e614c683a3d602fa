"""Encodes the images of predictions for proposals in the review app: medssl encode RUN PREDICTIONS"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the features of each case next to the predictions, and prints their folder."""
    args = build_parser().parse_args(words)
    from medssl.api import load_encoder
    from medssl.export.encode_cases import encode_predictions
    from medssl.predictions_folder import read_index

    print(encode_predictions(read_index(args.predictions), load_encoder(args.run)))


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl encode", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished pretraining or finetuning")
    parser.add_argument("predictions", type=Path, help="a predictions folder")
    return parser

"""Writes a store or predictions in nnU-Net's layout: medssl export-nnunet MANIFEST|PREDICTIONS --out FOLDER"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a raw data set that nnU-Net v2 trains on, or predicted labels under nnU-Net's names."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.models import export_nnunet
    from medssl.predictions_folder import read_index

    if args.source.is_file():
        export_nnunet.write_raw_dataset(Manifest.read(args.source), args.out)
        print(f"{args.out}: move it into nnUNet_raw, and splits_final.json into its folder in nnUNet_preprocessed")
    else:
        export_nnunet.write_predictions(read_index(args.source), args.out)
        print(args.out)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl export-nnunet", description=__doc__)
    parser.add_argument("source", type=Path, help="manifest.csv of a store, or a predictions folder")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    return parser

"""Writes a store as BIDS or nnU-Net data: medssl export-store STORE|PREDICTIONS --bids|--nnunet --out FOLDER"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the cases of a store, or predicted labels under nnU-Net's names."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.errors import BadInput
    from medssl.models import export_bids, export_nnunet
    from medssl.predictions_folder import read_index

    is_store = (args.source / "store.json").is_file()
    manifest = args.source / "manifest.csv" if is_store else args.source
    if args.bids and not manifest.is_file():
        raise BadInput(f"{args.source}: no store and no manifest; --bids exports a store, give its folder")
    if args.bids:
        export_bids.write_bids(Manifest.read(manifest), args.out)
        print(args.out)
    elif manifest.is_file():
        export_nnunet.write_raw_dataset(Manifest.read(manifest), args.out)
        print(f"{args.out}: move it into nnUNet_raw, and splits_final.json into its folder in nnUNet_preprocessed")
    else:
        export_nnunet.write_predictions(read_index(args.source), args.out)
        print(args.out)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl export-store", description=__doc__)
    parser.add_argument("source", type=Path, help="a store, its manifest.csv, or (with --nnunet) a predictions folder")
    layout = parser.add_mutually_exclusive_group(required=True)
    layout.add_argument("--bids", action="store_true", help="subjects, with labels in derivatives/medssl")
    layout.add_argument("--nnunet", action="store_true", help="imagesTr, labelsTr, imagesTs and dataset.json")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    return parser

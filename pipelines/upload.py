"""Copies a store to an object store: medssl upload STORE/manifest.csv s3://bucket/folder --out FOLDER"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Copies images and labels, and writes a small store that points to them."""
    args = build_parser().parse_args(words)
    from medssl.data.manifest import Manifest
    from medssl.data.storage.upload import upload_store

    uploaded = upload_store(Manifest.read(args.manifest), args.url, args.out)
    print(f"{len(uploaded.cases)} cases are at {args.url}\nnext: medssl pretrain ... manifest={args.out}/manifest.csv")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl upload", description=__doc__)
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store")
    parser.add_argument("url", help="folder in an object store that fsspec writes: s3://, gs://, az://, file://")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    return parser

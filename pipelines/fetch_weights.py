"""Downloads the weights of a published encoder: medssl fetch-weights openmind-mae-resenc --out weights"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Downloads a checkpoint, ready for `medssl import-weights`."""
    args = build_parser().parse_args(words)
    from medssl.data.public.download_progress import show_download
    from medssl.data.public.published_weights import HUB, PUBLISHED, fetch_weights

    with show_download(args.name) as on_progress:
        path = fetch_weights(args.name, args.out, on_progress, args.url or HUB)
    weights = PUBLISHED[args.name]
    print(f"{path}: {weights.description}; licence {weights.licence}, https://huggingface.co/{weights.repository}")
    print(f"next: medssl import-weights {path} --licence {weights.licence} --out runs/{args.name}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl fetch-weights", description=__doc__)
    parser.add_argument("name", help="openmind-mae-resenc or openmind-mae-primus")
    parser.add_argument("--out", type=Path, default=Path("weights"), help="parent folder (default: weights)")
    parser.add_argument("--url", metavar="URL", help="address of a mirror with the paths of the hub (default: the hub)")
    return parser

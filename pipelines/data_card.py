"""Describes a data set by what its store holds: medssl data-card STORE --facts FACTS.yaml"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Writes a card in Markdown and its picture; with --check it compares an existing card with the store."""
    args = build_parser().parse_args(words)
    from medssl.data.checks import data_card

    out, facts = args.out or args.store / "CARD.md", data_card.DataCardFacts.read(args.facts)
    if not args.check:
        data_card.write_card(args.store, facts, out)
        print(f"{out}\n{out.with_suffix('.png')}")
    elif differences := data_card.find_differences(args.store, facts, out):
        raise BadInput(
            f"{out}: differs from {args.store}: {' '.join(differences[:4])}; run it without --check to rewrite it"
        )
    else:
        print(f"{out}: describes the store")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl data-card", description=__doc__)
    parser.add_argument("store", type=Path, help="a folder that `medssl ingest` wrote")
    parser.add_argument("--facts", type=Path, metavar="FACTS.yaml", help="source, licence, citations, known problems")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="path of the card (default: STORE/CARD.md)")
    parser.add_argument("--check", action="store_true", help="only report where the card differs from the store")
    return parser

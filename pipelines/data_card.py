"""Writes what a data set is, counted from its store: medssl data-card STORE --facts FACTS.yaml"""

import argparse
from pathlib import Path

from medssl.data.checks import data_card as cards
from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Leaves a card in Markdown and its picture; with --check an existing card is held against the store."""
    parser = argparse.ArgumentParser("medssl data-card", description=__doc__)
    parser.add_argument("store", type=Path, help="a folder that `medssl ingest` wrote")
    parser.add_argument("--facts", type=Path, metavar="FACTS.yaml", help="source, licence, citations, known problems")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="the card (default: STORE/CARD.md)")
    parser.add_argument("--check", action="store_true", help="write nothing; say where the card differs")
    asked = parser.parse_args(words)
    out, facts = asked.out or asked.store / "CARD.md", cards.Facts.read(asked.facts)
    if not asked.check:
        cards.write(asked.store, facts, out)
        print(f"{out}\n{out.with_suffix('.png')}")
    elif found := cards.faults(asked.store, facts, out):
        raise BadInput(f"{out}: differs from {asked.store}: {' '.join(found[:4])}; write it anew without --check")
    else:
        print(f"{out}: says what the store holds")

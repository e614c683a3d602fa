"""Checks that no verdict was changed, removed or moved: medssl audit verify REVIEW.SQLITE"""

import argparse
import csv
import sys
from pathlib import Path

from medssl.errors import BadInput
from medssl.files import write_text
from medssl.review.event import START
from medssl.review.event_store import Store


def main(words: list[str]) -> None:
    """Verifies the chain of events, or lists it as CSV."""
    parser = argparse.ArgumentParser(prog="medssl audit", description=__doc__)
    parser.add_argument("do", choices=("verify", "list"))
    parser.add_argument("store", help="the database of `medssl review`, a file or a URL")
    parser.add_argument("--head", nargs="+", default=[], help="hashes noted earlier, which must still be in the chain")
    parser.add_argument("--noted", type=Path, help="a file, on another machine, of such hashes; gets the present one")
    given = parser.parse_args(words)
    store = Store.existing(given.store)
    if given.do == "list":
        _list(store)
    else:
        _verify(store, given.head, given.noted)


def _verify(store: Store, heads: list[str], noted: Path | None) -> None:
    """A chain whose end was cut off looks whole: only what was noted elsewhere tells."""
    before = noted.read_text(encoding="utf-8").split() if noted and noted.is_file() else []
    if faults := store.faults([*heads, *before]):
        raise BadInput(f"{store.name}: {'; '.join(faults)}; restore it from a backup and find out who wrote to it")
    events = store.events()
    head = events[-1].hash if events else START
    if noted:
        write_text(noted, "".join(f"{known}\n" for known in dict.fromkeys([*before, head])))
    print(f"{len(events)} events, unbroken. Note the head outside this machine, and give it as --head next time:")
    print(head)


def _list(store: Store) -> None:
    rows = [event.model_dump(exclude={"mask", "details"}) for event in store.events()]
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)

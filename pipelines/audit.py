"""Checks that no verdict was changed, removed or moved: medssl audit verify REVIEW.SQLITE"""

import argparse
import csv
import sys

from medssl.errors import BadInput
from medssl.review.event import START
from medssl.review.store import Store


def main(words: list[str]) -> None:
    """Verifies the chain of events, or lists it as CSV."""
    parser = argparse.ArgumentParser(prog="medssl audit", description=__doc__)
    parser.add_argument("do", choices=("verify", "list"))
    parser.add_argument("store", help="the database of `medssl review`, a file or a URL")
    parser.add_argument("--head", help="a hash that an earlier verify printed: it must still be in the chain")
    given = parser.parse_args(words)
    store = Store.existing(given.store)
    if given.do == "list":
        _list(store)
    elif faults := store.faults(given.head):
        raise BadInput(f"{given.store}: {'; '.join(faults)}; restore it from a backup and find out who wrote to it")
    else:
        events = store.events()
        print(f"{len(events)} events, unbroken. Note the head outside this machine, and give it as --head next time:")
        print(events[-1].hash if events else START)


def _list(store: Store) -> None:
    rows = [event.model_dump(exclude={"mask", "details"}) for event in store.events()]
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)

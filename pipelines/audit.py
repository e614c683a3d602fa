"""Checks that no verdict was changed, removed or moved, or exports all: medssl audit verify REVIEW.SQLITE"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import BadInput

if TYPE_CHECKING:
    from medssl.review.event_store import EventStore


def main(words: list[str]) -> None:
    """Verifies the chain of events, lists it as CSV, or exports it."""
    args = build_parser().parse_args(words)
    from medssl.review.event_store import EventStore

    store = EventStore.open_existing(args.database)
    if args.action == "list":
        _print_events(store)
    elif args.action == "export":
        _export_events(store, args.out)
    else:
        _verify_chain(store, args.anchor, args.anchor_file)


def _verify_chain(store: EventStore, anchors: list[str], anchor_file: Path | None) -> None:
    """Verifies the chain; a chain whose end was cut off is found only by hashes stored elsewhere (anchors)."""
    from medssl.files import write_text
    from medssl.review.audit.prediction_events import find_changed_inputs
    from medssl.review.event import START_HASH, find_clock_faults

    stored = anchor_file.read_text(encoding="utf-8").split() if anchor_file and anchor_file.is_file() else []
    if faults := store.find_faults([*anchors, *stored]):
        raise BadInput(f"{store.name}: {'; '.join(faults)}; restore it from a backup and find out what wrote to it")
    events = store.read_events()
    head = events[-1].hash if events else START_HASH
    if anchor_file:
        write_text(anchor_file, "".join(f"{line}\n" for line in dict.fromkeys([*stored, head])))
    for fault in (*find_clock_faults(events), *find_changed_inputs(events)):
        print(f"warning: {fault}")
    print(f"{len(events)} events, chain unbroken. Store this hash elsewhere, and give it as --anchor next time:")
    print(head)


def _export_events(store: EventStore, out: Path | None) -> None:
    from medssl.export.audit_report import write_audit_report

    if out is None:
        raise BadInput("--out is missing: give a file that ends in .html, .csv or .jsonl")
    events = store.read_events()
    write_audit_report(out, store.name, events, store.find_faults())
    print(f"{len(events)} events in {out}")


def _print_events(store: EventStore) -> None:
    from medssl.csv_text import neutralize_row

    rows = [event.model_dump(exclude={"mask", "details", "evidence"}) for event in store.read_events()]
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(neutralize_row, rows))


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl audit", description=__doc__)
    parser.add_argument("action", choices=("verify", "list", "export"))
    parser.add_argument("database", help="the database of `medssl review`, a file or a URL")
    parser.add_argument("--out", type=Path, help="file of `export`: .html or .csv for people, .jsonl for programs")
    parser.add_argument(
        "--anchor", nargs="+", default=[], help="hashes stored earlier, which must still be in the chain"
    )
    parser.add_argument(
        "--anchor-file", type=Path, help="a file of such hashes on another machine; the current one is added"
    )
    return parser

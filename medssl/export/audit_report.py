"""Writes the event log of a review for people, as HTML or CSV, and for programs, as JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medssl.csv_text import neutralize_row
from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.review.audit.prediction_events import find_changed_inputs
from medssl.review.event import DECISION_TEXT, Event, find_clock_faults

# The terms of IHE's profile "AI Result Assessment for Imaging".
ASSESSMENTS = {
    "accept": "accepted", "reject": "rejected", "edit": "supplemented", "relabel": "supplemented",
    "missed": "supplemented",
}  # fmt: skip
ACTIONS: Mapping[str, str] = DECISION_TEXT | {
    "stroke": "outline changed", "measure": "measured", "undo": "took back", "open": "opened", "close": "left",
    "sign": "signed", "reopen": "reopened", "deliver": "delivered", "predict": "predicted",
    "adjudicate": "decided between readers", "consensus": "signed the consensus",
}  # fmt: skip
STYLE = "body{font:14px sans-serif}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 6px}"


def write_audit_report(path: Path, name: str, events: Sequence[Event], faults: Sequence[str]) -> None:
    """Writes all events to a file that only its owner can read; its ending decides on the format.

    Args:
        path: The file, which ends in .html, .csv or .jsonl.
        name: The name of the database, for the title.
        events: The events in the order in which they were stored.
        faults: The faults of the chain; the report states them.

    Raises:
        BadInput: If the ending is another one.
    """
    writers: dict[str, Callable[[str, Sequence[Event], Sequence[str]], str]] = {
        ".html": _to_html, ".csv": _to_csv, ".jsonl": _to_json_lines,
    }  # fmt: skip
    if path.suffix not in writers:
        raise BadInput(f"{path}: the file must end in {', '.join(writers)}")
    text = writers[path.suffix](name, events, faults)
    with atomic_file(path, is_private=True) as part:
        part.write_text(text, encoding="utf-8", newline="")


def describe_event(event: Event) -> dict[str, Any]:
    """Returns one event in words: who did what to which finding, its assessment, and what was on screen."""
    facts = event.facts
    return {
        "event": event.id, "time": event.at, "case": event.case, "reviewer": event.reviewer, "role": event.role,
        "action": ACTIONS[event.action], "assessment": ASSESSMENTS.get(event.action, ""), "finding": event.finding,
        "label": "" if event.label is None else event.label, "reason": event.reason, "note": event.note,
        "takes_back": "" if event.target is None else event.target,
        "meaning": event.meaning if event.action in ("sign", "consensus") else "", "proof": facts.get("proof", ""),
        "image_sha256": facts.get("image", ""), "mask_sha256": facts.get("mask", ""), "model": event.model,
        "settings": event.details if event.action == "predict" else "",
        "version": event.version, "hash": event.hash,
    }  # fmt: skip


def _to_csv(_name: str, events: Sequence[Event], _faults: Sequence[str]) -> str:
    text = io.StringIO()
    rows = [neutralize_row(describe_event(event)) for event in events]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["event"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _to_json_lines(_name: str, events: Sequence[Event], _faults: Sequence[str]) -> str:
    """Returns one JSON object for each event, with its details and evidence, without the voxels of strokes."""
    rows = (
        describe_event(event) | {"code": event.action, "details": event.details, "evidence": event.facts}
        for event in events
    )
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _to_html(name: str, events: Sequence[Event], faults: Sequence[str]) -> str:
    """Returns a page with the state of the chain and one row for each event."""
    rows = [describe_event(event) for event in events]
    warnings = [*faults, *find_clock_faults(events), *find_changed_inputs(events)]
    state = "".join(f"<li>{escape(text)}</li>" for text in warnings) or "<li>The chain is unbroken.</li>"
    header = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in (rows[0] if rows else ()))
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row.values())}</tr>" for row in rows)
    head = events[-1].hash if events else "none"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Audit trail</title><style>{STYLE}</style>"
        f"<h1>Audit trail of {escape(name)}</h1><p>{len(events)} events; last hash {escape(head)}</p>"
        f"<ul>{state}</ul><table><tr>{header}</tr>{body}</table></html>\n"
    )

"""Records the predictions themselves as events, so that the record shows what the readers judged.

The event `predict` of a case holds in `details` the run, the version of the code, the time of the prediction and its
settings, in `model` the SHA-256 of the weights, and in its evidence the SHA-256 of the image that was predicted and of
the predicted labels.
"""

import getpass
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from medssl.files import read_checksums
from medssl.predictions_folder import IMAGE, LABELS, Index
from medssl.review.access.evidence import hash_case_files
from medssl.review.event import Act, Event
from medssl.review.event_store import EventStore

ROLE = "admin"  # a program predicts for the person who runs it, who judges nothing
PROOF = "user of the operating system"
SETTINGS = ("options", "uncertainty", "temperature", "thresholds", "guarantee", "calibrated_on")


def record_predictions(index: Index, store: EventStore, user: str = "") -> int:
    """Stores an event for each predicted case that has none yet, and returns how many it stored.

    Args:
        index: The predictions.
        store: The event log.
        user: Who predicted or opened the predictions; empty for the user of the operating system.
    """
    checksums = read_checksums(index.folder)
    details = json.dumps(describe_prediction(index), sort_keys=True)
    count = 0
    for case in index.cases:
        hashes = {"image": checksums.get(f"{case}/{IMAGE}", ""), "labels": checksums.get(f"{case}/{LABELS}", "")}
        if not all(hashes.values()):  # a folder without checksums
            hashes = hash_case_files(index, case)
        identity = json.dumps([case, details, index.weights_sha256, hashes], sort_keys=True)
        session = f"predict-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
        if store.find_event_id(session, 1) is None:
            act = Act(
                session=session, number=1, case=case, reviewer=user or getpass.getuser(), role=ROLE, action="predict",
                details=details, model=index.weights_sha256,
            )  # fmt: skip
            store.record(act, evidence=hashes | {"proof": PROOF})
            count += 1
    return count


def describe_prediction(index: Index) -> dict[str, Any]:
    """Returns the run, the version of the code, the time and the settings of a prediction."""
    settings = {name: value for name in SETTINGS if (value := getattr(index, name)) not in ("", 1.0, {}, [])}
    return {"model": index.model, "created": index.created, "settings": settings}


def find_changed_inputs(events: Sequence[Event]) -> list[str]:
    """Returns a message for each act on an image or on labels other than those that were predicted.

    An act that is older than the event of the prediction, or of another model, is not compared.
    """
    faults, predicted = [], dict[tuple[str, str], Event]()
    for event in events:
        if event.action == "predict":
            predicted[event.case, event.model] = event
        elif (origin := predicted.get((event.case, event.model))) and event.facts:
            changed = [name for name in ("image", "labels") if event.facts.get(name) != origin.facts.get(name)]
            if changed:
                faults.append(
                    f"event {event.id}: the {' and the '.join(changed)} of {event.case} on screen differed from what "
                    f"was predicted (event {origin.id})"
                )
    return faults

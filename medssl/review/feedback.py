"""Writes the reviewed cases as a labelled data set that `medssl ingest` reads."""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.errors import BadInput
from medssl.files import atomic_folder, write_json
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, NOTICE, Index, read_findings
from medssl.review.consensus.reading_of_record import select_complete_reading, select_signed_reading
from medssl.review.corrected_labels import apply_reading
from medssl.review.event import Event
from medssl.review.reading import NEUTRAL_ACTIONS, Reading, has_other_model_events, replay
from medssl.version import __version__

DESCRIPTION, PROVENANCE, PATIENTS = "dataset.json", "provenance.json", "cases.csv"


@dataclass(frozen=True)
class FeedbackResult:
    """The result for one case.

    Args:
        case: The identifier of the case.
        reading: The reading that becomes the label; None if the case cannot be used.
        reason: The reason why the case cannot be used; empty if it can.
    """

    case: str
    reading: Reading | None
    reason: str = ""


def select_readings(index: Index, events: Iterable[Event]) -> list[FeedbackResult]:
    """Returns for every case the reading to learn from, or the reason why there is none."""
    events = list(events)
    return [_select_reading(case, index, [event for event in events if event.case == case]) for case in index.cases]


def write_feedback(
    index: Index, events: list[Event], out: Path, patients: Mapping[str, str], previous: Path | None = None
) -> list[FeedbackResult]:
    """Writes the data set, whole or not at all, and returns the result of every case.

    Args:
        index: The reviewed predictions.
        events: The events of the review.
        out: The folder to write, which must not exist.
        patients: The patient of each case, where it differs from the index.
        previous: An earlier data set; its cases are copied unless they were reviewed again.

    Raises:
        BadInput: If no case can be used, `out` exists or `previous` is no such data set.
    """
    with atomic_folder(out, is_private=True) as folder:
        results = select_readings(index, events)
        readings = [result.reading for result in results if result.reading]
        if not readings:
            reasons = "; ".join(sorted({result.reason for result in results}))
            raise BadInput(
                f"{index.folder}: no case can be used for training yet ({reasons}); review it with `medssl review`"
            )
        patients = {case: index.find_study(case).patient for case in index.cases} | dict(patients)
        entries = [_write_case(folder, index, reading, events, patients) for reading in readings]
        earlier_entries: list[dict[str, Any]] = []
        version = 0
        if previous:
            reviewed = {event.case for event in events if event.action not in NEUTRAL_ACTIONS}
            earlier_entries, version = _copy_earlier_cases(previous, folder, reviewed)
        _write_metadata(folder, index, [*earlier_entries, *entries], version + 1, events[-1].hash)
    return results


def _select_reading(case: str, index: Index, events: list[Event]) -> FeedbackResult:
    """Selects the signed reading or the consensus, or else the latest with a verdict on every finding."""
    findings, readings = read_findings(index.case_folder(case)), list(replay(events).values())
    complete = [r for r in readings if r.verdicts and not r.list_pending((*findings, *r.added))]
    try:
        reading = select_signed_reading(index, case, events) or select_complete_reading(index, case, complete)
    except BadInput as error:
        return FeedbackResult(case, None, str(error))
    if reading is None:
        return FeedbackResult(case, None, "some findings have no verdict" if readings else "not read")
    readers = {reading.reviewer, *reading.authors.values()}
    if has_other_model_events((event for event in events if event.reviewer in readers), index.weights_sha256):
        return FeedbackResult(case, None, "its verdicts belong to the prediction of another model")
    if reason := _find_exclusion_reason(reading):
        return FeedbackResult(case, None, reason)
    return FeedbackResult(case, reading)


def _find_exclusion_reason(reading: Reading) -> str:
    """Returns why a complete reading gives no reliable label; empty if it does."""
    decisions = {verdict.decision for verdict in reading.verdicts.values()}
    if unsure := [finding for finding, verdict in reading.verdicts.items() if verdict.decision == "unsure"]:
        names = f"{unsure[0]}{f' and {len(unsure) - 1} more' if len(unsure) > 1 else ''}"
        return f"a reader was unsure of {names}, so no voxel of the case can be called right; decide, then sign again"
    has_addition = any(reading.verdicts[finding.id].decision != "reject" for finding in reading.added)
    if not reading.strokes and ("edit" in decisions or has_addition):
        return "a finding was marked as corrected or added, but nothing was drawn"
    return ""


def _write_case(
    folder: Path, index: Index, reading: Reading, events: list[Event], patients: Mapping[str, str]
) -> dict[str, Any]:
    """Writes one case and returns its provenance, without any free text of a reader."""
    case_folder = index.case_folder(reading.case)
    labels = apply_reading(nifti.read(case_folder / LABELS, label=True), read_findings(case_folder), reading)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case_folder / IMAGE, folder / "imagesTr" / f"{reading.case}.nii.gz")
    nifti.write(labels, folder / "labelsTr" / f"{reading.case}.nii.gz")
    fields = {"id", "at", "action", "finding", "label", "reason", "target", "hash"}
    readers = {reading.reviewer, *reading.authors.values()}
    own_events = [e for e in events if e.case == reading.case and e.reviewer in readers]
    return {
        "case": reading.case, "patient": patients[reading.case], "unit": index.units[reading.case],
        "reviewer": reading.reviewer, "signed_at": reading.signed_at, "meaning": reading.meaning,
        "authors": reading.authors, "model": index.model,
        "events": [event.model_dump(include=fields) for event in own_events],
    }  # fmt: skip


def _copy_earlier_cases(previous: Path, folder: Path, reviewed: set[str]) -> tuple[list[dict[str, Any]], int]:
    """Copies the cases that were not reviewed again; returns their provenance and the version of the data set."""
    path = previous / PROVENANCE
    if not path.is_file():
        raise BadInput(f"{previous}: not a data set that `medssl feedback` wrote ({PROVENANCE} is missing)")
    provenance: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    entries = [entry for entry in provenance["cases"] if entry["case"] not in reviewed]
    for entry in entries:
        for name in ("imagesTr", "labelsTr"):
            shutil.copyfile(previous / name / f"{entry['case']}.nii.gz", folder / name / f"{entry['case']}.nii.gz")
    return entries, provenance["version"]


def _write_metadata(folder: Path, index: Index, entries: list[dict[str, Any]], version: int, head: str) -> None:
    """Writes the description, the provenance and the table of patients of the data set."""
    names = [entry["case"] for entry in entries]
    files = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    write_json(folder / DESCRIPTION, {
        "name": f"reviewed predictions, version {version}", "description": NOTICE, "numTraining": len(files),
        "modality": {"0": "CT" if all(entry["unit"] == "HU" for entry in entries) else "MR"},
        "labels": {"0": "background"} | {str(label.value): label.name for label in index.labels}, "training": files,
    })  # fmt: skip
    write_json(folder / PROVENANCE, {
        "notice": NOTICE, "version": version, "made_by": __version__, "predictions": index.created, "head": head,
        "cases": entries,
    })  # fmt: skip
    with (folder / PATIENTS).open("w", newline="", encoding="utf-8") as handle:
        rows = ((entry["case"], entry.get("patient") or entry["case"]) for entry in entries)
        csv.writer(handle).writerows([("case", "patient"), *rows])

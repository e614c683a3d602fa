"""Feedback: what reviewers decided, as a labelled data set that `medssl ingest` reads and a model can learn from."""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl import __version__
from medssl.errors import BadInput
from medssl.files import fresh, write_json
from medssl.finding import Finding
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, NOTICE, Index, read_findings
from medssl.review.corrected_labels import labels_after
from medssl.review.event import Event
from medssl.review.reading import Reading, fold, strays

DESCRIPTION, PROVENANCE, PATIENTS = "dataset.json", "provenance.json", "cases.csv"


@dataclass(frozen=True)
class Outcome:
    """Whether a case can be learned from, whose reading it is, and why not."""

    case: str
    reading: Reading | None
    reason: str = ""


def outcomes(index: Index, events: Iterable[Event]) -> list[Outcome]:
    """For every case the reading that counts, or why none does."""
    told = list(events)
    return [_outcome(case, index, [event for event in told if event.case == case]) for case in index.cases]


def write(
    index: Index, events: list[Event], out: Path, patients: Mapping[str, str], after: Path | None = None
) -> list[Outcome]:
    """Writes the data set whole or not at all; with `after`, also an earlier one's cases that were not read anew."""
    with fresh(out) as made:
        told = outcomes(index, events)
        used = [outcome for outcome in told if outcome.reading]
        if not used:
            reasons = sorted({outcome.reason for outcome in told})
            raise BadInput(
                f"{index.folder}: no case can be learned from yet ({'; '.join(reasons)}); `medssl review` it first"
            )
        whose = {case: index.study(case).patient for case in index.cases} | dict(patients)
        provenance = [_case(made, index, outcome.reading, events, whose) for outcome in used if outcome.reading]
        before = (
            _carry_over(after, made, {event.case for event in events if event.action != "open"}) if after else _NOTHING
        )
        _describe(made, index, [*before["cases"], *provenance], before["version"] + 1, events[-1].hash)
    return told


_NOTHING: dict[str, Any] = {"cases": [], "version": 0}


def _outcome(case: str, index: Index, events: list[Event]) -> Outcome:
    """The latest signed reading counts; without one, the latest that has a verdict on every finding."""
    findings, readings = read_findings(index.case(case)), list(fold(events).values())
    signed = [r for r in readings if r.signed_at]
    whole = [r for r in readings if r.verdicts and not r.missing((*findings, *r.added))]
    chosen = max(signed, key=lambda r: r.signed_at or "", default=None) or max(
        whole, key=lambda r: r.latest, default=None
    )
    if chosen is None:
        return Outcome(case, None, "not read to the end" if readings else "not read")
    if strays((event for event in events if event.reviewer == chosen.reviewer), index.weights):
        return Outcome(case, None, "its verdicts were given on another model's prediction")
    return Outcome(case, None, reason) if (reason := _doubt(chosen)) else Outcome(case, chosen)


def _doubt(reading: Reading) -> str:
    decisions = {verdict.decision for verdict in reading.verdicts.values()}
    if "unsure" in decisions:
        return "a reader was unsure"
    if not reading.strokes and ("edit" in decisions or any(_stands(reading, f) for f in reading.added)):
        return "a correction was announced but not drawn"
    return ""


def _stands(reading: Reading, finding: Finding) -> bool:
    return reading.verdicts[finding.id].decision != "reject"


def _case(
    made: Path, index: Index, reading: Reading, events: list[Event], patients: Mapping[str, str]
) -> dict[str, Any]:
    """Writes one case and tells where its label comes from, in nobody's own words: a data set travels far."""
    folder = index.case(reading.case)
    labels = labels_after(nifti.read(folder / LABELS, label=True), read_findings(folder), reading)
    for name in ("imagesTr", "labelsTr"):
        (made / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / IMAGE, made / "imagesTr" / f"{reading.case}.nii.gz")
    nifti.write(labels, made / "labelsTr" / f"{reading.case}.nii.gz")
    return {
        "case": reading.case, "patient": patients[reading.case], "unit": index.units[reading.case],
        "reviewer": reading.reviewer,
        "signed_at": reading.signed_at, "model": index.model,
        "events": [_said(e) for e in events if (e.case, e.reviewer) == (reading.case, reading.reviewer)],
    }  # fmt: skip


def _said(event: Event) -> dict[str, Any]:
    return event.model_dump(include={"id", "at", "action", "finding", "label", "reason", "target", "hash"})


def _carry_over(after: Path, made: Path, anew: set[str]) -> dict[str, Any]:
    path = after / PROVENANCE
    if not path.is_file():
        raise BadInput(f"{after}: not a data set that `medssl feedback` wrote ({PROVENANCE} is missing)")
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept = [case for case in told["cases"] if case["case"] not in anew]
    for case in kept:
        for name in ("imagesTr", "labelsTr"):
            shutil.copyfile(after / name / f"{case['case']}.nii.gz", made / name / f"{case['case']}.nii.gz")
    return told | {"cases": kept}


def _describe(made: Path, index: Index, cases: list[dict[str, Any]], version: int, head: str) -> None:
    names = [case["case"] for case in cases]
    files = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    write_json(made / DESCRIPTION, {
        "name": f"reviewed predictions, version {version}", "description": NOTICE, "numTraining": len(files),
        "modality": {"0": "CT" if all(case["unit"] == "HU" for case in cases) else "MR"},
        "labels": {"0": "background"} | {str(label.value): label.name for label in index.labels}, "training": files,
    })  # fmt: skip
    told = {"notice": NOTICE, "version": version, "made_by": __version__, "predictions": index.created, "head": head}
    write_json(made / PROVENANCE, told | {"cases": cases})
    with (made / PATIENTS).open("w", newline="", encoding="utf-8") as handle:
        whose = ((case["case"], case.get("patient") or case["case"]) for case in cases)
        csv.writer(handle).writerows([("case", "patient"), *whose])

"""Scores of cases, one row a case and label, and what they come to together."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from medssl.metrics.overlap import dice, volume_error_ml
from medssl.metrics.statistics import mean_interval
from medssl.metrics.surface import surfaces
from medssl.volume import Volume

METRICS = ("dice", "nsd", "hd95_mm", "assd_mm", "volume_error_ml")
LESS = ("hd95_mm", "assd_mm", "volume_error_ml")  # the smaller, the better


@dataclass(frozen=True)
class Row:
    """How well one label of one case was segmented, and which of both masks is empty."""

    case: str
    patient: str
    label: str
    dice: float
    nsd: float
    hd95_mm: float
    assd_mm: float
    volume_error_ml: float
    predicted_ml: float
    reference_ml: float
    empty: Literal["", "predicted", "reference", "both"]


def score(
    case: str,
    patient: str,
    label: str,
    values: Sequence[int],
    predicted: Volume,
    reference: Volume,
    tolerance_mm: float,
) -> Row:
    """One label, or the union of several `values`, of two volumes on one grid. Empty masks as declared in `surface`.

    Voxels whose reference is negative are unknown, and background in both masks: they count nowhere, and where a
    structure meets them both end alike.
    """
    drawn = reference.require_same_grid(predicted).voxels
    ours, theirs = np.isin(predicted.voxels, values) & (drawn >= 0), np.isin(drawn, values)
    apart = surfaces(ours, theirs, predicted.spacing_mm())
    ml = predicted.voxel_ml()
    return Row(
        case, patient, label, dice(ours, theirs), apart.nsd(tolerance_mm), apart.hd95_mm(), apart.assd_mm(),
        volume_error_ml(ours, theirs, ml), float(ours.sum()) * ml, float(theirs.sum()) * ml,
        _empty(bool(ours.any()), bool(theirs.any())),
    )  # fmt: skip


def table(rows: Sequence[Any]) -> str:
    """Rows of one dataclass as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(asdict(rows[0])) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Per label, and for the mean of a case's labels: mean, 95 % interval and median, and the counts of empty masks."""
    told = {name: _group([row for row in rows if row.label == name]) for name in dict.fromkeys(r.label for r in rows)}
    return told if len(told) == 1 else told | {"mean of labels": _group(rows)}


def _group(rows: Sequence[Row]) -> dict[str, Any]:
    patients = {row.case: row.patient for row in rows}
    told: dict[str, Any] = {"cases": len(patients), "patients": len(set(patients.values()))}
    told["empty"] = {kind: sum(row.empty == kind for row in rows) for kind in ("both", "predicted", "reference")}
    for metric in METRICS:
        values = np.array([np.mean([getattr(row, metric) for row in rows if row.case == case]) for case in patients])
        said = mean_interval(values[None], list(patients.values()))
        told[metric] = {"mean": said.estimate, "low": said.low, "high": said.high, "median": float(np.median(values))}
    return told


def _empty(ours: bool, theirs: bool) -> Literal["", "predicted", "reference", "both"]:
    if ours or theirs:
        return "" if ours and theirs else "reference" if ours else "predicted"
    return "both"

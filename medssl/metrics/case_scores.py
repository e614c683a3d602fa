"""Computes segmentation scores per case and label, and their summary over cases."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from medssl.csv_text import neutralize_row
from medssl.metrics.overlap import dice, volume_error_ml
from medssl.metrics.statistics import mean_interval
from medssl.metrics.surface import compute_surface_distances
from medssl.volume import Volume

METRICS = ("dice", "nsd", "hd95_mm", "assd_mm", "volume_error_ml")
LOWER_IS_BETTER = ("hd95_mm", "assd_mm", "volume_error_ml")


@dataclass(frozen=True)
class CaseScore:
    """The segmentation scores of one label of one case, and which of its two masks is empty."""

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


def score_case(
    case: str,
    patient: str,
    label: str,
    values: Sequence[int],
    predicted: Volume,
    reference: Volume,
    tolerance_mm: float,
) -> CaseScore:
    """Returns the scores of one label, or of the union of several label values.

    Voxels with a negative reference are unknown and count as background in both masks. See `SurfaceDistances` for the
    scores of empty masks.

    Args:
        case: The id of the case.
        patient: The id of the patient.
        label: The name of the label.
        values: The label values that count as foreground.
        predicted: The predicted label map.
        reference: The reference label map, on the same grid.
        tolerance_mm: The tolerance of NSD.
    """
    annotation = reference.require_same_grid(predicted).voxels
    mask, true_mask = np.isin(predicted.voxels, values) & (annotation >= 0), np.isin(annotation, values)
    distances = compute_surface_distances(mask, true_mask, predicted.spacing_mm())
    ml = predicted.voxel_ml()
    return CaseScore(
        case, patient, label, dice(mask, true_mask), distances.nsd(tolerance_mm), distances.hd95_mm(),
        distances.assd_mm(), volume_error_ml(mask, true_mask, ml), float(mask.sum()) * ml, float(true_mask.sum()) * ml,
        _name_empty_masks(bool(mask.any()), bool(true_mask.any())),
    )  # fmt: skip


def to_csv(rows: Sequence[Any]) -> str:
    """Returns rows of one dataclass as CSV text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(asdict(rows[0])) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(neutralize_row(asdict(row)) for row in rows)
    return out.getvalue()


def summarize(rows: Sequence[CaseScore]) -> dict[str, dict[str, Any]]:
    """Returns mean, 95 % interval, median and counts of empty masks, per label and for the mean of a case's labels."""
    labels = {
        name: _summarize_group([row for row in rows if row.label == name])
        for name in dict.fromkeys(r.label for r in rows)
    }
    return labels if len(labels) == 1 else labels | {"mean of labels": _summarize_group(rows)}


def _summarize_group(rows: Sequence[CaseScore]) -> dict[str, Any]:
    patients = {row.case: row.patient for row in rows}
    result: dict[str, Any] = {"cases": len(patients), "patients": len(set(patients.values()))}
    result["empty"] = {kind: sum(row.empty == kind for row in rows) for kind in ("both", "predicted", "reference")}
    for metric in METRICS:
        values = np.array([np.mean([getattr(row, metric) for row in rows if row.case == case]) for case in patients])
        interval = mean_interval(values[None], list(patients.values()))
        result[metric] = {
            "mean": interval.estimate, "low": interval.low, "high": interval.high, "median": float(np.median(values)),
        }  # fmt: skip
    return result


def _name_empty_masks(has_predicted: bool, has_reference: bool) -> Literal["", "predicted", "reference", "both"]:
    if has_predicted or has_reference:
        return "" if has_predicted and has_reference else "reference" if has_predicted else "predicted"
    return "both"

"""Checks an act against what the server itself holds of the case, so that nothing depends on a browser."""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medssl.finding import REASONS, Finding
from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review.event import DECISIONS, Act
from medssl.review.mask_runs import is_inside, unpack_runs
from medssl.review.reading import AXES_ADAPTER, Reading, find_rejection_reason
from medssl.review.viewer_acts import describe_record

MAX_LABEL = 65535
MARGIN_VOXELS = 1.0  # an axis may end at the outer edge of a voxel


@dataclass(frozen=True, eq=False)
class CaseContents:
    """What the acts on a case may refer to.

    Args:
        findings: The predicted findings.
        labels: The declared label values.
        shape: The number of voxels along i, j and k.
        affine: Maps a voxel index to a point in mm, RAS+.
    """

    findings: tuple[Finding, ...]
    labels: frozenset[int]
    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    @classmethod
    def read(cls, index: Index, case: str) -> "CaseContents":
        """Reads the findings and the grid of a case; raises BadInput if they are missing or damaged."""
        path = index.case_folder(case) / LABELS
        shape, affine = _read_grid(path, path.stat().st_mtime_ns if path.is_file() else 0)
        declared = frozenset(label.value for label in index.labels)
        return cls(read_findings(path.parent), declared, shape, affine)

    def complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields of an act, for a signature with the predicted findings that it signs."""
        is_sign = fields["action"] == "sign"
        return fields | ({"details": json.dumps([finding.id for finding in self.findings])} if is_sign else {})

    def find_fault(self, act: Act, reading: Reading) -> str:
        """Returns why an act does not fit the case or the reviewer's reading of it; empty if it fits."""
        return find_rejection_reason(act, reading) or self._find_field_fault(act, reading)

    def find_fault_of_seen(self, seen: dict[str, Any], act: Act, reading: Reading) -> str:
        """Returns the same for a reader who saw the record `seen`, see `viewer_acts.describe_record`."""
        if seen != describe_record(reading, (*self.findings, *reading.added)):
            return "the case was changed since you saw it, in another window; look at it again"
        return self.find_fault(act, reading)

    def list_faults(self, reading: Reading) -> list[str]:
        """Returns a message for each stored act that cannot be read or does not fit the image, and is left out."""
        bad = [stroke for stroke in reading.strokes if _find_runs_fault(stroke.mask, math.prod(self.shape))]
        return [*reading.faults, *(f"event {e.id} (stroke) does not fit this image and was left out" for e in bad)]

    def _find_field_fault(self, act: Act, reading: Reading) -> str:
        is_new = act.action == "missed"
        finding_ids = {finding.id for finding in (*self.findings, *reading.added)}
        if act.action in (*DECISIONS, "measure", "stroke") and act.finding and (act.finding in finding_ids) == is_new:
            return f"finding {act.finding!r} is {'in this case already' if is_new else 'not in this case'}"
        if act.reason not in ("", *REASONS):
            return f"{act.reason!r} is not a reason; known: {', '.join(REASONS)}"
        if act.action == "relabel" and act.label not in self.labels:
            return self._describe_label(act.label)
        if act.action == "missed":
            details = json.loads(act.details)
            return self._find_point_fault([details["centre_mm"]]) or self._find_label_fault([details["label"]])
        if act.action == "measure":
            axes = AXES_ADAPTER.validate_json(act.details)
            return self._find_point_fault([*axes.long, *axes.short])
        return self._find_stroke_fault(act.mask) if act.action == "stroke" else ""

    def _find_stroke_fault(self, mask: bytes | None) -> str:
        if fault := _find_runs_fault(mask, math.prod(self.shape)):
            return fault
        return self._find_label_fault(int(value) for value in np.unique(unpack_runs(mask or b"")[:, 2]) if value)

    def _find_point_fault(self, points: Sequence[Sequence[float]]) -> str:
        inverse = np.linalg.inv(self.affine)
        index = np.array(points, float) @ inverse[:3, :3].T + inverse[:3, 3]
        is_outside = (index < -MARGIN_VOXELS) | (index > np.array(self.shape) - 1 + MARGIN_VOXELS)
        return "the point lies outside the image" if is_outside.any() else ""

    def _find_label_fault(self, values: Iterable[int]) -> str:
        return next((self._describe_label(value) for value in values if value not in self.labels), "")

    def _describe_label(self, value: int | None) -> str:
        return f"label {value} is not declared; known: {', '.join(map(str, sorted(self.labels)))}"


@lru_cache(maxsize=10_000)
def _find_runs_fault(mask: bytes | None, num_voxels: int) -> str:
    """Returns why packed runs are no stroke on an image of `num_voxels` voxels; empty if they are."""
    try:
        runs = unpack_runs(mask or b"")
    except (zlib.error, ValueError):
        return "the stroke cannot be read"
    if is_inside(runs, num_voxels) and (runs[:, 2] >= 0).all() and (runs[:, 2] <= MAX_LABEL).all():
        return ""
    return f"the stroke leaves the image of {num_voxels} voxels; it was drawn on another image"


@lru_cache(maxsize=200)
def _read_grid(path: Path, _modified_ns: int) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    return nifti.read_grid(path)

"""Applies the verdicts and strokes of a reader to the predicted labels of a case."""

import zlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.errors import BadInput
from medssl.finding import Finding
from medssl.review.event import Event
from medssl.review.mask_runs import apply_runs, is_inside, unpack_runs
from medssl.review.reading import Reading
from medssl.volume import NEIGHBOURS_26, Volume


def apply_reading(labels: Volume, findings: Iterable[Finding], reading: Reading) -> Volume:
    """Returns the predicted labels without the rejected findings, with relabelled findings and with the strokes.

    A stroke stays even if the finding that it belongs to is rejected. A stored act that does not fit the labels, such
    as a stroke outside the image, is left out; `find_stroke_fault` returns why.
    """
    corrected = labels.voxels.copy()
    for finding in findings:
        verdict = reading.verdicts.get(finding.id)
        if verdict and verdict.decision == "reject":
            corrected[extract_finding_mask(labels, finding)] = 0
        elif verdict and verdict.decision == "relabel" and _can_hold(labels, verdict.label):
            corrected[extract_finding_mask(labels, finding)] = verdict.label
    return apply_strokes(replace(labels, voxels=corrected), reading.strokes)


def apply_strokes(labels: Volume, strokes: Iterable[Event]) -> Volume:
    """Returns the labels after the strokes, on the grid of the input, without the strokes that do not fit it."""
    ras = labels.reorient("RAS")
    for stroke in strokes:
        if stroke.mask and not find_stroke_fault(stroke, labels):
            ras = replace(ras, voxels=apply_runs(ras.voxels, unpack_runs(stroke.mask)))
    return replace(ras.reorient(labels.orientation()), affine=labels.affine)


def find_stroke_fault(stroke: Event, labels: Volume) -> str:
    """Returns why a stored stroke does not fit the labels; empty if it fits."""
    try:
        runs = unpack_runs(stroke.mask or b"")
    except (zlib.error, ValueError):
        return f"event {stroke.id} (stroke) cannot be read and was left out"
    fits = is_inside(runs, labels.voxels.size) and all(_can_hold(labels, value) for value in np.unique(runs[:, 2]))
    return "" if fits else f"event {stroke.id} (stroke) does not fit this image and was left out"


def _can_hold(labels: Volume, value: int | None) -> bool:
    """Whether the data type of the labels has a value."""
    return value is not None and 0 <= value <= (1 if labels.voxels.dtype == bool else np.iinfo(labels.voxels.dtype).max)


def extract_finding_mask(labels: Volume, finding: Finding) -> Bool[np.ndarray, "i j k"]:
    """Returns the voxels of a finding: the connected component of its label that fills its bounding box."""
    low, high = np.array(finding.low_mm), np.array(finding.high_mm)
    corners = np.array([[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
    index = labels.to_index(corners)
    first = np.maximum(np.floor(index.min(0)), 0).astype(int)
    crop = tuple(slice(a, b) for a, b in zip(first, np.ceil(index.max(0)).astype(int) + 1, strict=True))
    components, count = ndimage.label(labels.voxels[crop] == finding.label, NEIGHBOURS_26)
    half_voxel = np.abs(labels.affine[:3, :3]).sum(1) / 2
    for n in range(1, count + 1):
        mm = labels.to_mm((np.argwhere(components == n) + first).astype(float))
        if np.allclose([mm.min(0) - half_voxel, mm.max(0) + half_voxel], [low, high], atol=0.01):
            mask = np.zeros(labels.shape, bool)
            mask[crop] = components == n
            return mask
    raise BadInput(f"{finding.id}: its voxels are not in the labels; findings and labels come from two predictions")

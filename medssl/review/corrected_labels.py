"""The labels of a case as a reader left them: strokes drawn in, rejected findings gone, relabelled ones renamed."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.errors import BadInput
from medssl.finding import Finding
from medssl.review import mask_runs as masks
from medssl.review.event import Event
from medssl.review.reading import Reading
from medssl.volume import NEIGHBOURS_26, Volume


def labels_after(labels: Volume, findings: Iterable[Finding], reading: Reading) -> Volume:
    """What the model drew after one reader's verdicts and strokes; a stroke outlives the verdict on its finding."""
    out = labels.voxels.copy()
    for finding in findings:
        verdict = reading.verdicts.get(finding.id)
        if verdict and verdict.decision == "reject":
            out[part(labels, finding)] = 0
        elif verdict and verdict.decision == "relabel" and verdict.label is not None:
            out[part(labels, finding)] = verdict.label
    return drawn(replace(labels, voxels=out), reading.strokes)


def drawn(labels: Volume, strokes: Iterable[Event]) -> Volume:
    """The labels after strokes, on the grid they came on."""
    ras = labels.oriented("RAS")
    for stroke in strokes:
        if stroke.mask:
            ras = replace(ras, voxels=masks.apply(ras.voxels, masks.unpack(stroke.mask)))
    return replace(ras.oriented(labels.orientation()), affine=labels.affine)


def part(labels: Volume, finding: Finding) -> Bool[np.ndarray, "i j k"]:
    """The voxels of a finding: the one connected part of its label that fills the finding's box."""
    low, high = np.array(finding.low_mm), np.array(finding.high_mm)
    corners = np.array([[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
    index = labels.to_index(corners)
    first = np.maximum(np.floor(index.min(0)), 0).astype(int)
    crop = tuple(slice(a, b) for a, b in zip(first, np.ceil(index.max(0)).astype(int) + 1, strict=True))
    numbered, count = ndimage.label(labels.voxels[crop] == finding.label, NEIGHBOURS_26)
    reach = np.abs(labels.affine[:3, :3]).sum(1) / 2
    for n in range(1, count + 1):
        mm = labels.to_mm((np.argwhere(numbered == n) + first).astype(float))
        if np.allclose([mm.min(0) - reach, mm.max(0) + reach], [low, high], atol=0.01):
            out = np.zeros(labels.shape, bool)
            out[crop] = numbered == n
            return out
    raise BadInput(f"{finding.id}: its voxels are not in the labels; findings and labels are of two predictions")

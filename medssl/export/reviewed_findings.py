"""Reviewed: the findings of a case after the verdicts, each with the voxels it has now and what was said of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.inference.connected_findings import find
from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review import mask_runs as masks
from medssl.review.corrected_labels import labels_after, part
from medssl.review.event import Event
from medssl.review.reading import Reading, fold, strays
from medssl.review.recist import Axes
from medssl.volume import Volume


@dataclass(frozen=True)
class Item:
    """A finding, the number of its voxels (None where none are left or they became part of another), its verdict.

    `axes` are the diameters that a reader measured.
    """

    finding: Finding
    number: int | None
    verdict: Verdict | None
    corrected: bool = False
    axes: Axes | None = None


@dataclass(frozen=True)
class Reviewed:
    """The labels after the verdicts, the connected parts of them numbered from 1, and all findings."""

    labels: Volume
    parts: Volume
    items: tuple[Item, ...]


def read(index: Index, case: str, reading: Reading) -> Reviewed:
    """What one reading left of a predicted case."""
    folder = index.case(case)
    names = {label.value: label.name for label in index.labels}
    return reviewed(nifti.read(folder / LABELS, label=True), read_findings(folder), reading, names)


def reviewed(labels: Volume, findings: Sequence[Finding], reading: Reading, names: Mapping[int, str]) -> Reviewed:
    """What is left, changed and new after one reader's verdicts and strokes.

    A connected part goes by the name of the finding whose voxels, or whose strokes, fill most of it.
    """
    before = labels.oriented("RAS")
    after = labels_after(before, findings, reading)
    said = (*findings, *reading.added)
    owner = _owner(before, findings, said, reading)
    names = {int(value): names.get(int(value), f"label {value}") for value in np.unique(after.voxels[after.voxels > 0])}
    ones, zeros = np.ones(after.shape, np.float64), np.zeros(after.shape, np.float64)
    numbered = np.zeros(after.shape, np.int32)
    items: list[Item] = []
    for new in find(after, ones, zeros, reading.case, names):
        voxels = part(after, new)
        numbered[voxels] = len(items) + 1
        items.append(_item(new, len(items) + 1, said, owner[voxels], reading, {item.finding.id for item in items}))
    if np.count_nonzero(numbered) != np.count_nonzero(after.voxels):
        raise BadInput(f"{reading.case}: too many or intertwined parts; they cannot be told as findings")
    kept = {item.finding.id for item in items}
    gone = [Item(f, None, reading.verdicts.get(f.id)) for f in said if f.id not in kept]
    told = tuple(replace(item, axes=reading.axes.get(item.finding.id)) for item in (*items, *gone))
    return Reviewed(after, replace(after, voxels=numbered), told)


def _owner(
    before: Volume, findings: Sequence[Finding], said: Sequence[Finding], reading: Reading
) -> Int32[np.ndarray, "i j k"]:
    """For each voxel the number of the finding it belongs to: the model's, else the one a stroke was meant for."""
    owner = np.zeros(before.shape, np.int32)
    for n, finding in enumerate(findings, 1):
        owner[part(before, finding)] = n
    number = {finding.id: n for n, finding in enumerate(said, 1)}
    for stroke in reading.strokes:
        if stroke.mask and stroke.finding in number:
            runs = masks.unpack(stroke.mask)
            runs[:, 2] = number[stroke.finding]
            owner = np.where(owner, owner, masks.apply(np.zeros_like(owner), runs))
    return owner.astype(np.int32, copy=False)


def _item(
    new: Finding, number: int, said: Sequence[Finding], owner: Int32[np.ndarray, "n"], reading: Reading, taken: set[str]
) -> Item:
    """The part under the id and with the verdict of its finding; a further part of one gets an id of its own."""
    counts = np.bincount(owner, minlength=len(said) + 1)
    if not counts[1:].any():
        return Item(replace(new, id=f"{new.id}-drawn", source="reader"), number, None, corrected=True)
    old = said[int(counts[1:].argmax())]
    id_ = f"{old.id}-part-{number}" if old.id in taken else old.id
    same = counts[0] == 0 and np.isclose(new.volume_ml, old.volume_ml) and new.label == old.label
    kept = replace(new, id=id_, score=old.score, uncertainty=old.uncertainty, source=old.source)
    return Item(kept, number, reading.verdicts.get(old.id), corrected=not same)


def counting(index: Index, case: str, events: Iterable[Event], unsigned: bool) -> Reading:
    """The latest signed reading; without one, if that is wanted, the latest, or the model's word alone."""
    own = [event for event in events if event.case == case]
    reading = _latest(case, list(fold(own).values()), unsigned)
    if strays((event for event in own if event.reviewer == reading.reviewer), index.weights):
        raise BadInput("its verdicts were given on another model's prediction; review this one")
    return reading


def _latest(case: str, readings: list[Reading], unsigned: bool) -> Reading:
    if signed := [reading for reading in readings if reading.signed_at]:
        return max(signed, key=lambda r: r.signed_at or "")
    if not unsigned:
        raise BadInput("not signed" if readings else "not read")
    return max(readings, key=lambda r: r.latest, default=Reading(case, ""))

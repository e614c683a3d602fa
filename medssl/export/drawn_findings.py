"""Measures the findings of a case as a reader has drawn them, and names the detached parts of a finding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Bool, Int16
from scipy import ndimage

from medssl.finding import Finding, FindingKind
from medssl.inference.connected_findings import label_components, measure_mask
from medssl.review.corrected_labels import FindingMap
from medssl.review.mask_runs import Runs
from medssl.review.reading import Reading
from medssl.volume import NEIGHBOURS_26, Volume

Mask = Bool[np.ndarray, "i j k"]


@dataclass(frozen=True)
class DrawnFinding:
    """A finding as it is drawn, before any verdict.

    Args:
        finding: The finding with its current sizes, which are 0 if it has no voxels left.
        value: The value of its voxels in `DrawnCase.values`.
        part_of: The identifier of the finding that it is a detached part of; empty for a finding of its own.
        is_changed: Whether the reader changed its voxels.
        is_listed: Whether it gets a verdict of its own: it was predicted, or the reader added it.
    """

    finding: Finding
    value: int
    part_of: str = ""
    is_changed: bool = False
    is_listed: bool = True


@dataclass(frozen=True)
class DrawnCase:
    """The findings of a case as they are drawn.

    Args:
        finding_map: The finding of each voxel; the detached parts of a finding belong to it.
        values: The finding of each voxel; each detached part has a value of its own.
        findings: The predicted and the added findings, then their detached parts and what was drawn for no finding.
    """

    finding_map: FindingMap
    values: Int16[np.ndarray, "i j k"]
    findings: tuple[DrawnFinding, ...]


@dataclass(frozen=True)
class _Piece:
    """Voxels of a finding: a mask, and the voxel of the whole volume at its first corner."""

    mask: Mask
    corner: tuple[int, int, int]

    def crop(self, voxels: np.ndarray) -> np.ndarray:
        """Returns the part of a whole volume that the mask covers, without a copy."""
        return voxels[tuple(slice(c, c + n) for c, n in zip(self.corner, self.mask.shape, strict=True))]

    def measure(self, finding: Finding, grid: Volume) -> Finding:
        """Returns the finding with the sizes of these voxels; their intensities are unknown here."""
        sizes = measure_mask(self.mask, self.corner, grid)
        return replace(finding, **asdict(sizes), mean_intensity=None, sd_intensity=None)


def measure_drawn_findings(predicted: FindingMap, reading: Reading, names: Mapping[int, str]) -> DrawnCase:
    """Returns the findings of a case with the sizes that they have after the strokes of a reader.

    This is the only place that measures a reader's findings: screen, PDF, SR and CSV show its numbers. A finding that
    no stroke touched keeps its measurements. Of a lesion in several pieces, the one that covers most of what was
    predicted keeps the identifier, or else the one that was drawn first; the other pieces are findings of their own.

    Args:
        predicted: The predicted findings.
        reading: The reading with the strokes.
        names: The name of each label value.
    """
    finding_map = predicted.draw(reading)
    before, after = predicted.numbers.voxels, finding_map.numbers.voxels
    is_changed = before != after
    touched = set(np.unique(np.concatenate([before[is_changed], after[is_changed]])).tolist())
    runs = finding_map.number_strokes(reading)
    findings, parts = list[DrawnFinding](), list[tuple[Finding, str, _Piece]]()
    for value, finding in enumerate(finding_map.findings, finding_map.top + 1):
        if value not in touched:
            findings.append(DrawnFinding(finding, value))
            continue
        pieces = _split_finding(after == value, before == value, finding.kind, runs)
        sizes = pieces[0].measure(finding, finding_map.numbers) if pieces else clear_sizes(finding)
        findings.append(DrawnFinding(sizes, value, is_changed=bool(((before == value) != (after == value)).any())))
        for piece in pieces[1:]:
            part = replace(finding, id=f"{finding.id}-part-{_find_first_stroke(piece, runs, after.shape)}")
            parts.append((part, finding.id, piece))
    for label in sorted(touched & set(range(1, finding_map.top + 1))):
        for piece in _find_pieces(after == label):
            if (piece.crop(is_changed) & piece.mask).any():
                id_ = f"{reading.case}-drawn-{_find_first_stroke(piece, runs, after.shape)}"
                parts.append((_describe_drawn(id_, reading.case, label, names), "", piece))
    return DrawnCase(finding_map, *_number_parts(finding_map, findings, parts))


def clear_sizes(finding: Finding) -> Finding:
    """Returns a finding without voxels."""
    return replace(finding, volume_ml=0.0, diameter_mm=0.0, long_axis_mm=None, short_axis_mm=None)


def _number_parts(
    finding_map: FindingMap, findings: list[DrawnFinding], parts: list[tuple[Finding, str, _Piece]]
) -> tuple[Int16[np.ndarray, "i j k"], tuple[DrawnFinding, ...]]:
    """Gives each part a value of its own, and a further name to the second part of the same stroke."""
    values, used = finding_map.numbers.voxels.copy(), Counter[str]()
    for value, (finding, part_of, piece) in enumerate(parts, finding_map.top + len(findings) + 1):
        piece.crop(values)[piece.mask] = value
        used[finding.id] += 1
        suffix = f"-{used[finding.id]}" if used[finding.id] > 1 else ""
        measured = piece.measure(replace(finding, id=finding.id + suffix), finding_map.numbers)
        findings = [*findings, DrawnFinding(measured, value, part_of, True, is_listed=False)]
    return values, tuple(findings)


def _split_finding(mask: Mask, original: Mask, kind: FindingKind, runs: Mapping[int, Runs]) -> list[_Piece]:
    """Returns the pieces of a finding, first the one that keeps its identifier; an organ is one piece."""
    pieces = _find_pieces(mask) if kind == "lesion" else [_Piece(mask, (0, 0, 0))] * bool(mask.any())
    overlaps = [int((piece.crop(original) & piece.mask).sum()) for piece in pieces]
    if any(overlaps):
        order = sorted(range(len(pieces)), key=lambda n: -overlaps[n])
    else:
        order = sorted(range(len(pieces)), key=lambda n: _find_first_stroke(pieces[n], runs, mask.shape))
    return [pieces[n] for n in order]


def _find_pieces(mask: Mask) -> list[_Piece]:
    """Returns the connected components of a mask, the largest first."""
    if not mask.any():
        return []
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    numbers = label_components(mask[box])
    pieces = []
    for number, inner in enumerate(ndimage.find_objects(numbers), 1):
        i, j, k = (outer.start + side.start for outer, side in zip(box, inner, strict=True))
        pieces.append(_Piece(numbers[inner] == number, (i, j, k)))
    return pieces


def _find_first_stroke(piece: _Piece, runs: Mapping[int, Runs], shape: tuple[int, ...]) -> int:
    """Returns the event of the first stroke that drew or cut off a piece: that changed a voxel in it or next to it.

    The name of a part contains this event, so further strokes leave it as it is.
    """
    near = ndimage.binary_dilation(np.pad(piece.mask, 1), NEIGHBOURS_26)
    voxels = np.argwhere(near) + np.subtract(piece.corner, 1)
    voxels = voxels[((voxels >= 0) & (voxels < shape)).all(1)]
    offsets = np.sort(np.ravel_multi_index(tuple(voxels.T), shape, order="F"))
    for event, (starts, lengths, _) in ((event, table.T) for event, table in runs.items()):
        following = np.append(offsets, np.iinfo(np.int64).max)[np.searchsorted(offsets, starts)]
        if (following < starts + lengths).any():
            return event
    return 0


def _describe_drawn(id: str, case: str, label: int, names: Mapping[int, str]) -> Finding:
    """Returns a finding that a reader drew without adding it first; its sizes follow."""
    origin = (0.0, 0.0, 0.0)
    name = names.get(label, f"label {label}")
    return Finding(id, case, label, name, origin, origin, origin, 0.0, 0.0, 1.0, source="reader")

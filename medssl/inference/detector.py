"""Detector: a volume in, lesions out: candidates of voxels, of boxes or of both, drawn on the volume's own grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from scipy import ndimage

from medssl.inference.box_ensemble import BoxNetwork, vote
from medssl.inference.connected_findings import find
from medssl.inference.ensemble import entropy
from medssl.inference.lesion_candidates import Candidate, candidates, within
from medssl.inference.predictor import Prediction
from medssl.inference.sliding_window import Network, Size, slide
from medssl.inference.test_time_augmentation import View
from medssl.metrics.overlap import box_iou
from medssl.volume import Volume

AGREE = 0.1  # overlap of boxes from which a peak and a box are one lesion


@dataclass(frozen=True)
class Detector:
    """Applies networks that give class probabilities, background first, networks that give boxes, or both.

    A candidate's probability may be far below 1/2: its score says how sure it is, and which scores count is decided
    by whoever reads them. Where voxels and boxes are asked, the score is the mean of both, and what one of them did
    not see had 0 from it. `calibrate` turns what networks say into the score of a finding.
    """

    voxels: tuple[Network, ...]
    boxes: tuple[BoxNetwork, ...]
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = 0.5
    batch: int = 2
    device: str = "cpu"
    least: float = 0.05
    views: tuple[View, ...] = (View(),)
    calibrate: Callable[[float], float] = float

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Searches on the working grid, and draws what was found on the volume's own."""
        ready = self.prepare(volume)
        found, foreground, apart = self.search(ready.voxels.reshape(-1, *ready.shape))
        seen, disagreement = _onto(foreground, ready, volume), None if apart is None else _onto(apart, ready, volume)
        drawn = _drawn(found, ready, volume)
        scores = np.array([0.0, *(self.calibrate(one.score) for one in found)], np.float32)
        labels = replace(volume, voxels=np.array([0, *(one.label for one in found)], np.uint8)[drawn], unit="label")
        doubt = disagreement.voxels if disagreement else _doubt(seen.voxels)
        findings = find(labels, scores[drawn], doubt, case, self.names)
        if not self.voxels:
            findings = tuple(replace(finding, source="box") for finding in findings)
        return Prediction(labels, seen, findings, disagreement)

    @property
    def looks(self) -> int:
        """How many answers of voxels there are, which may disagree; boxes settle it among themselves."""
        return len(self.voxels) * len(self.views)

    def search(
        self, x: Float[np.ndarray, "c i j k"]
    ) -> tuple[list[Candidate], Float32[np.ndarray, "i j k"], Float32[np.ndarray, "i j k"] | None]:
        """The candidates of a prepared volume, the surest first, how likely each voxel is of one, and how looks differ.

        The last is None where there are no two looks at voxels.
        """
        x = x.astype(np.float32, copy=False)
        boxes = self._boxes(x) if self.boxes else []
        if not self.voxels:
            scores = np.array([0.0, *(one.score for one in boxes)], np.float32)
            return boxes, scores[numbered(boxes, (x.shape[1], x.shape[2], x.shape[3]))], None
        p, apart = self._probability(x)
        peaks = [one for label in self.names for one in candidates(p[label], label, self.least)]
        return _surest(agreed(peaks, boxes) if self.boxes else peaks), 1 - p[0], apart

    def _probability(
        self, x: Float32[np.ndarray, "c i j k"]
    ) -> tuple[Float32[np.ndarray, "n i j k"], Float32[np.ndarray, "i j k"] | None]:
        """The mean class probabilities over networks and views, and their disagreement, as of an `Ensemble`."""
        mean, apart = torch.zeros(max(self.names) + 1, *x.shape[1:]), torch.zeros(x.shape[1:])
        for network, view in product(self.voxels, self.views):
            seen = np.ascontiguousarray(view.of(x))
            said = view.back(slide(seen, network, self.crop, self.overlap, self.batch, self.device))
            mean += said / self.looks
            apart -= entropy(said) / self.looks if self.looks > 1 else 0
        differ = ((apart + entropy(mean)) / np.log(len(mean))).clamp(0, 1).numpy() if self.looks > 1 else None
        return mean.numpy(), differ

    def _boxes(self, x: Float32[np.ndarray, "c i j k"]) -> list[Candidate]:
        """What windows, views and networks agree on."""
        said = vote(x, self.boxes, self.views, self.crop, self.overlap, self.batch, self.device)
        shape = x.shape[1], x.shape[2], x.shape[3]
        pairs = [(label, *pair) for label in self.names for pair in zip(*said.of(label), strict=True)]
        found = [within(box, label, float(score), shape) for label, box, score in pairs if score >= self.least]
        return _surest([one for one in found if len(one.voxels)])


def agreed(peaks: Sequence[Candidate], boxes: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of the voxels with the mean of their score and their best box's, and boxes that no candidate took."""
    left, found = list(boxes), []
    for peak in peaks:
        worth = [_overlap(peak, box) for box in left]
        mine = left.pop(int(np.argmax(worth))) if max(worth, default=0) >= AGREE else None
        found.append(replace(peak, score=(peak.score + (mine.score if mine else 0)) / 2))
    return [*found, *(replace(box, score=box.score / 2) for box in left)]


def numbered(found: Sequence[Candidate], shape: Size) -> Int32[np.ndarray, "i j k"]:
    """Candidates drawn as numbers from 1; of one that touches an earlier one, only what stands apart is drawn."""
    drawn = np.zeros(shape, np.int32)
    for number, one in enumerate(found, 1):
        first = (one.voxels.min(0) - 1).clip(0)
        near = drawn[tuple(map(slice, first, one.voxels.max(0) + 2))]
        free = ndimage.maximum_filter(near, 3)[tuple((one.voxels - first).T)] == 0
        drawn[tuple(one.voxels[free].T)] = number
    return drawn


def _overlap(a: Candidate, b: Candidate) -> float:
    low, high = (np.stack([one.box[at] for one in (a, b)]) for at in (slice(3), slice(3, 6)))
    return float(box_iou(low[:1], high[:1], low[1:], high[1:])[0, 0]) if a.label == b.label else 0.0


def _surest(found: Sequence[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda one: -one.score)


def _drawn(found: Sequence[Candidate], ready: Volume, grid: Volume) -> Int32[np.ndarray, "i j k"]:
    """The candidates' numbers on another grid; one that falls between its slices keeps a voxel."""
    drawn = replace(ready, voxels=numbered(found, ready.shape), unit="label").resample_to(grid, order=0).voxels
    for number in set(range(1, len(found) + 1)) - set(np.unique(drawn).tolist()):
        middle = ready.to_mm(found[number - 1].voxels.mean(0)[None])
        at = np.rint(grid.to_index(middle)[0]).astype(int).clip(0, np.array(grid.shape) - 1)
        if drawn[tuple(at)] == 0:
            drawn[tuple(at)] = number
    return drawn


def _onto(voxels: Float32[np.ndarray, "i j k"], ready: Volume, grid: Volume) -> Volume:
    """Shares of 1 on another grid."""
    placed = Volume(voxels, ready.affine, "probability").resample_to(grid, order=1, fill=None)
    return replace(placed, voxels=placed.voxels.clip(0, 1))


def _doubt(p: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
    """The entropy of a probability, in shares of its largest."""
    p = p.clip(1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

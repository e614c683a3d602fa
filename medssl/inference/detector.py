"""Detects lesions in a volume with voxel networks, box networks or both, and draws them on the original grid."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int32
from scipy import ndimage

from medssl.arrays.disk_arrays import create_disk_array, iterate_slabs, release_pages, transform_slabs
from medssl.inference.box_ensemble import collect_boxes
from medssl.inference.lesion_candidates import Candidate, ellipsoid_candidate, extract_candidates
from medssl.inference.sliding_window import OVERLAP, Network, Size, stream_slabs
from medssl.inference.streaming.case_stream import Prediction, collect_prediction
from medssl.inference.streaming.detection_stream import DetectionStream
from medssl.inference.streaming.grid_map import GridMap
from medssl.inference.streaming.mean_slabs import stream_mean
from medssl.inference.test_time_augmentation import MirrorView
from medssl.metrics.overlap import box_iou
from medssl.volume import Volume

MIN_BOX_IOU = 0.1  # from this overlap on, a voxel candidate and a box are the same lesion


@dataclass(frozen=True)
class Detector:
    """Predicts lesions with networks that output class probabilities, networks that output boxes, or both.

    The voxels of a candidate may have a probability far below 1/2: its score states how likely it is a lesion, and the
    score threshold is left to the reader of the prediction. If voxels and boxes are both predicted, the score is their
    mean, with 0 for the one that missed the lesion. Large maps at the working spacing lie in temporary files.

    Args:
        voxel_networks: Networks that output class probabilities, background first.
        box_networks: Networks that output the class scores and the corners of the boxes at all anchors.
        prepare: Converts a scan to network input: orientation, spacing and values.
        crop: The size of the sliding window in voxels.
        names: The class names by label value, without background.
        overlap: The fraction of a window that overlaps the next one.
        batch_size: The number of windows per forward pass.
        min_score: Candidates below this score are left out.
        views: The views for test-time augmentation.
        calibrate: Maps a raw score to a calibrated one.
    """

    voxel_networks: tuple[Network, ...]
    box_networks: tuple[Network, ...]
    prepare: Callable[[Volume], Volume]
    crop: Size
    names: Mapping[int, str]
    overlap: float = OVERLAP
    batch_size: int = 2
    min_score: float = 0.05
    views: tuple[MirrorView, ...] = (MirrorView(),)
    calibrate: Callable[[float], float] = float

    def __call__(self, volume: Volume, case: str) -> Prediction:
        """Returns the lesions of a scan, drawn on its own grid."""
        return collect_prediction(self.stream(volume, case), volume)

    def stream(self, volume: Volume, case: str) -> DetectionStream:
        """Returns the lesions of a scan as a stream of blocks.

        Candidates compete over the whole volume, so their probabilities are kept at the working spacing, with the
        slices of the scan one behind the other: a block of slices needs one part of a file.
        """
        prepared = self.prepare(volume)
        axis = GridMap.between(prepared, volume).order[0]
        x = prepared.voxels.reshape(-1, *prepared.shape)
        candidates, lesion_map, disagreement_map = self.find_candidates(x, axis)
        drawing = Volume(instance_map(candidates, prepared.shape, axis), prepared.affine, "label")
        lesions = replace(drawing, voxels=lesion_map, unit="probability")
        disagreement = None if disagreement_map is None else replace(lesions, voxels=disagreement_map)
        scores = [self.calibrate(candidate.score) for candidate in candidates]
        is_box = not self.voxel_networks
        return DetectionStream(volume, case, self.names, candidates, scores, drawing, lesions, disagreement, is_box)

    @property
    def num_predictions(self) -> int:
        """The number of voxel predictions to measure the disagreement of: networks times views."""
        return len(self.voxel_networks) * len(self.views)

    def find_candidates(
        self, x: Float[np.ndarray, "c i j k"], axis: int = 0
    ) -> tuple[list[Candidate], Float32[np.ndarray, "i j k"], Float32[np.ndarray, "i j k"] | None]:
        """Finds lesion candidates in a prepared volume.

        Args:
            x: The prepared volume.
            axis: The axis whose steps are the longest in memory in the maps, 0 to 2.

        Returns:
            The candidates in descending order of score, the probability that a voxel belongs to any lesion, and the
            disagreement of the voxel predictions, or None if there are fewer than two.
        """
        x = x.astype(np.float32, copy=False)
        boxes = self._predict_boxes(x) if self.box_networks else []
        if not self.voxel_networks:
            scores = np.array([0.0, *(box.score for box in boxes)], np.float32)
            numbers = instance_map(boxes, (x.shape[1], x.shape[2], x.shape[3]), axis)
            return boxes, transform_slabs(scores.take, numbers, _create_map(numbers.shape, np.float32, axis)), None
        p, disagreement = self._predict_probability(x, axis)
        peaks = [peak for label in self.names for peak in extract_candidates(p[label], label, self.min_score)]
        candidates = merge_peaks_and_boxes(peaks, boxes) if self.box_networks else peaks
        lesion_map = transform_slabs(_invert, p[0], _create_map(p.shape[1:], np.float32, axis))
        return _sort_by_score(candidates), lesion_map, disagreement

    def _predict_probability(
        self, x: Float32[np.ndarray, "c i j k"], axis: int
    ) -> tuple[Float32[np.ndarray, "n i j k"], Float32[np.ndarray, "i j k"] | None]:
        """Returns the mean class probabilities over networks and views, and their disagreement as in `Ensemble`."""
        predictions = (self._stream_view(x, *pair, axis) for pair in product(self.voxel_networks, self.views))
        means = stream_mean(predictions, self.num_predictions)
        return _collect_maps(means, x.shape[1 + axis], axis, self.num_predictions > 1)

    def _stream_view(
        self, x: Float32[np.ndarray, "c i j k"], network: Network, view: MirrorView, axis: int
    ) -> Iterator[Float[np.ndarray, "n w u v"]]:
        """Yields the class probabilities of a view, mirrored back."""
        size = self.crop, self.overlap, self.batch_size
        for slab in stream_slabs(view.apply(x), network, *size, axis, axis in view.axes):
            yield view.restore(slab, axis)

    def _predict_boxes(self, x: Float32[np.ndarray, "c i j k"]) -> list[Candidate]:
        """Returns the boxes merged over windows, views and networks."""
        window = self.crop, self.overlap, self.batch_size
        votes = collect_boxes(x, self.box_networks, self.views, *window, self.min_score)
        shape = x.shape[1], x.shape[2], x.shape[3]
        candidates = [
            ellipsoid_candidate(box, label, float(score), shape)
            for label in self.names
            for box, score in zip(*votes.merge_boxes(label), strict=True)
            if score >= self.min_score
        ]
        return _sort_by_score([candidate for candidate in candidates if len(candidate.voxels)])


def _collect_maps(
    slabs: Iterable[tuple[Float32[np.ndarray, "n w u v"], Float32[np.ndarray, "w u v"]]],
    length: int,
    axis: int,
    has_disagreement: bool,
) -> tuple[Float32[np.ndarray, "n i j k"], Float32[np.ndarray, "i j k"] | None]:
    """Returns the whole maps of class probabilities and disagreement, the latter only if it is wanted.

    Args:
        slabs: Rows of both, in the order of `stream_slabs`.
        length: The number of rows.
        axis: The axis of the rows, 0 to 2.
        has_disagreement: Whether the disagreement is wanted.
    """
    means, disagreements, row = np.empty((0, 0, 0, 0), np.float32), None, 0
    for mean, disagreement in slabs:
        if not row:
            means = create_disk_array((len(mean), length, *mean.shape[2:]), np.float32)
            disagreements = create_disk_array(means.shape[1:], np.float32) if has_disagreement else None
        rows = slice(row, row + len(disagreement))
        means[:, rows] = mean
        if disagreements is not None:
            disagreements[rows] = disagreement
            release_pages(disagreements)
        release_pages(means)
        row = rows.stop
    return np.moveaxis(means, 1, 1 + axis), None if disagreements is None else np.moveaxis(disagreements, 0, axis)


def _create_map(shape: Sequence[int], dtype: type, axis: int) -> np.ndarray:
    """Returns an array on disk in which the steps of an axis are the longest."""
    others = [length for n, length in enumerate(shape) if n != axis]
    return np.moveaxis(create_disk_array([shape[axis], *others], dtype), 0, axis)


def _invert(probability: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
    return 1 - probability


def merge_peaks_and_boxes(peaks: Sequence[Candidate], boxes: Sequence[Candidate]) -> list[Candidate]:
    """Merges candidates from voxels with those from boxes.

    Each voxel candidate takes the remaining box with the largest overlap, if it reaches `MIN_BOX_IOU`, and the mean of
    both scores. Unmatched candidates and boxes keep half their score.
    """
    unmatched, merged = list(boxes), []
    for peak in peaks:
        ious = [_candidate_iou(peak, box) for box in unmatched]
        match = unmatched.pop(int(np.argmax(ious))) if max(ious, default=0) >= MIN_BOX_IOU else None
        merged.append(replace(peak, score=(peak.score + (match.score if match else 0)) / 2))
    return [*merged, *(replace(box, score=box.score / 2) for box in unmatched)]


def instance_map(candidates: Sequence[Candidate], shape: Size, axis: int = 0) -> Int32[np.ndarray, "i j k"]:
    """Draws candidates as numbers from 1; voxels that touch an earlier candidate are left out.

    The steps of `axis` are the longest in memory.
    """
    instances = _create_map(shape, np.int32, axis)
    for index in iterate_slabs(instances):
        instances[index] = 0
    for number, candidate in enumerate(candidates, 1):
        first = (candidate.voxels.min(0) - 1).clip(0)
        nearby = instances[tuple(map(slice, first, candidate.voxels.max(0) + 2))]
        is_free = ndimage.maximum_filter(nearby, 3)[tuple((candidate.voxels - first).T)] == 0
        instances[tuple(candidate.voxels[is_free].T)] = number
        release_pages(instances)
    return instances


def _candidate_iou(a: Candidate, b: Candidate) -> float:
    """Returns the IoU of two boxes, 0 if their labels differ."""
    low, high = (np.stack([candidate.box[side] for candidate in (a, b)]) for side in (slice(3), slice(3, 6)))
    return float(box_iou(low[:1], high[:1], low[1:], high[1:])[0, 0]) if a.label == b.label else 0.0


def _sort_by_score(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: -candidate.score)

"""The inside of the box of a proposal: examples for the classifier, the priors, and the random walker."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import ndimage

from medssl.review.assist.depth import find_deepest_point, measure_depth, measure_signed_depth
from medssl.review.assist.drawn_slices import NO_SLICES, DrawnSlices
from medssl.review.assist.label_context import LabelContext
from medssl.review.assist.random_walker import solve_random_walker
from medssl.review.assist.signed_shape import place_by_point, place_by_slices
from medssl.review.assist.voxel_classifier import Embedding, Evidence, embed_voxels
from medssl.review.assist.voxel_features import Features
from medssl.volume import Spacing

Mask = Bool[np.ndarray, "i j k"]
Grid = Float32[np.ndarray, "i j k"]
Point = Int64[np.ndarray, "3"]
SEED_RADIUS = 1.5  # of the ball around a click, in units of the finest spacing
CORE_MM, FAR_MM = 2.0, 8.0  # voxels deeper in the mask, and further away from it, are examples
MAX_EXAMPLES = 2000  # of the mask, or of what is far from it
COARSE_VOXELS = 200_000  # of a larger box, every second voxel along each axis is classified
MASK_EVIDENCE = 0.3  # weight of the examples of the mask, where those of a click have the weight 1
SCORE_SLOPE, MASK_LIMIT = 4.0, 3.0  # from scores to logits; the largest logit of the mask, which grows by 1 per mm
CLICK_LOGIT, CLICK_RADIUS_MM = 3.0, 4.0  # how a click moves the logits around it
SHAPE_WEIGHT, SHAPE_FLOOR = 1.5, 0.03  # how much the shapes of signed cases count, and the lowest share one may have
DEPTH_LIMIT = 6.0  # the largest logit of the depth that drawn slices give, which grows by 1 per mm
OUTSIDE_MM = 15.0  # voxels of drawn slices further outside are no examples
SLICE_REACH_MM = 6.0  # how far from a drawn slice it has more say than the mask that is there


@dataclass(frozen=True, eq=False)
class Clicks:
    """The voxels that a reader marked as inside and as outside of a finding, in order."""

    inside: Int64[np.ndarray, "n 3"]
    outside: Int64[np.ndarray, "m 3"]

    @classmethod
    def none(cls) -> "Clicks":
        """Returns no clicks."""
        return cls(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64))

    @property
    def all_points(self) -> Int64[np.ndarray, "p 3"]:
        """The voxels of both kinds."""
        return np.concatenate([self.inside, self.outside])

    def keep_within(self, shape: tuple[int, ...]) -> "Clicks":
        """Returns the clicks on a grid of this shape."""
        pair = [points[((points >= 0) & (points < shape)).all(1)] for points in (self.inside, self.outside)]
        return Clicks(*pair)


@dataclass(frozen=True, eq=False)
class Scene:
    """What is known in the box of a proposal.

    Args:
        features: The features of each voxel, first the normalized intensity.
        mask: The current mask of the finding.
        clicks: The clicks in the box.
        spacing_mm: The distance between neighbouring voxels along i, j, k in mm.
        slices: The slices of the box in which the mask is as the reader wants it.
    """

    features: Features
    mask: Mask
    clicks: Clicks
    spacing_mm: Spacing
    slices: DrawnSlices = NO_SLICES

    def propose(self, context: LabelContext | None) -> Mask:
        """Returns the proposed mask."""
        inside, outside = self._draw_seeds()
        logits, evidence = self._measure_click_logits(), self._gather_evidence(inside, outside)
        if self.slices.count:
            depth = self._measure_drawn_depth(context)
            logits += np.clip(depth, -DEPTH_LIMIT, DEPTH_LIMIT)
            evidence += self._learn_from_slices(depth)
        else:
            logits += self._measure_mask_logits() + self._measure_shape_logits(context)
        if context:
            evidence += context.weigh_evidence()
        prior = 1 / (1 + np.exp(-np.clip(logits + self._classify(evidence), -30, 30)))
        sigmas = [0.5 * min(self.spacing_mm) / mm for mm in self.spacing_mm]
        intensity = ndimage.gaussian_filter(self.features[0], sigmas)
        probability = solve_random_walker(prior.astype(np.float32), intensity, inside, outside, self.spacing_mm)
        return _clean_mask(probability > 0.5, inside | (self.mask & ~outside))

    def build_embedding(self, selected: Mask) -> Embedding:
        """Returns the embedding of the selected voxels, with their positions relative to the finding."""
        positions = (np.argwhere(selected) - self._find_centre()) * np.array(self.spacing_mm)
        return embed_voxels(self.features[:, selected], positions.T.astype(np.float32))

    @cached_property
    def _depth_mm(self) -> Grid:
        """The distance of each voxel of the mask to the voxels outside."""
        return measure_depth(self.mask, self.spacing_mm)

    @cached_property
    def _distance_mm(self) -> Grid:
        """The distance of each voxel outside the mask to the mask."""
        return measure_depth(~self.mask, self.spacing_mm)

    def _find_centre(self) -> Float32[np.ndarray, "3"]:
        """Returns the deepest point of the mask; without a mask, where the reader clicked first."""
        if self.mask.any():
            return find_deepest_point(self._depth_mm)
        return self.clicks.inside[0].astype(np.float32)

    def _measure_distances(self, point: Point) -> Grid:
        """Returns the distance of each voxel to a point in mm."""
        sides = zip(self.mask.shape, point, self.spacing_mm, strict=True)
        i, j, k = np.ix_(*(((np.arange(n) - p) * mm) ** 2 for n, p, mm in sides))
        return np.sqrt(i + j + k).astype(np.float32)

    def _draw_seeds(self) -> tuple[Mask, Mask]:
        """Returns the voxels in balls around the clicks inside and outside, without what lies in both."""
        radius_mm = SEED_RADIUS * min(self.spacing_mm)
        inside, outside = np.zeros(self.mask.shape, bool), np.zeros(self.mask.shape, bool)
        for ball, points in ((inside, self.clicks.inside), (outside, self.clicks.outside)):
            for point in points:
                ball |= self._measure_distances(point) <= radius_mm
        in_slices = self.slices.mark(self.mask.shape)
        is_inside, is_outside = inside & ~outside, outside & ~inside
        return np.where(in_slices, self.mask, is_inside), np.where(in_slices, ~self.mask, is_outside)

    def _gather_evidence(self, inside: Mask, outside: Mask) -> Evidence:
        """Returns the evidence of the clicks, of the core of the mask, and of what is far from both."""
        core, far = np.zeros(self.mask.shape, bool), np.ones(self.mask.shape, bool)
        far[1:-1, 1:-1, 1:-1] = False
        if self.mask.any():
            core, far = self._depth_mm > CORE_MM, self._distance_mm > FAR_MM
        examples = (
            (inside, True, len(self.clicks.inside)),
            (outside, False, len(self.clicks.outside)),
            (_thin_out(core & ~outside), True, MASK_EVIDENCE),
            (_thin_out(far & ~inside), False, MASK_EVIDENCE),
        )
        evidence = Evidence.empty()
        for selected, is_inside, weight in examples:
            evidence = evidence + Evidence.from_examples(self.build_embedding(selected), is_inside) * weight
        return evidence

    def _measure_drawn_depth(self, context: LabelContext | None) -> Grid:
        """Returns the signed depth in mm that the drawn slices give, further away from them that of the mask."""
        shapes = context.shapes if context else ()
        expected = place_by_slices(shapes, self.mask, self.slices, self.spacing_mm)
        depth = self.slices.extend(self.mask, self.spacing_mm, expected)
        if not (self.mask & ~self.slices.mark(self.mask.shape)).any():
            return depth
        distance = self.slices.measure_distance(self.mask.shape, self.spacing_mm)
        nearness = np.exp(-0.5 * (distance / SLICE_REACH_MM) ** 2)
        return nearness * depth + (1 - nearness) * measure_signed_depth(self.mask, self.spacing_mm)

    def _learn_from_slices(self, depth_mm: Grid) -> Evidence:
        """Returns the evidence of the drawn slices, as much as that of as many clicks."""
        in_slices = self.slices.mark(self.mask.shape)
        near = in_slices & ~self.mask & (depth_mm > -OUTSIDE_MM)
        inside = Evidence.from_examples(self.build_embedding(in_slices & self.mask), is_inside=True)
        return (inside + Evidence.from_examples(self.build_embedding(near), is_inside=False)) * self.slices.count

    def _measure_shape_logits(self, context: LabelContext | None) -> Grid | float:
        """Returns the logits of the shapes of signed cases around the deepest point of the mask."""
        if not context:
            return 0.0
        share = place_by_point(context.shapes, self.mask.shape, self._find_centre(), self.spacing_mm)
        return SHAPE_WEIGHT * np.log((share + SHAPE_FLOOR) / (1 - share + SHAPE_FLOOR))

    def _classify(self, evidence: Evidence) -> Grid:
        """Returns the logit of each voxel; in a large box every second one is computed and repeated."""
        step = 2 if self.mask.size > COARSE_VOXELS else 1
        selected = np.zeros(self.mask.shape, bool)
        selected[::step, ::step, ::step] = True
        scores = (evidence.fit() @ self.build_embedding(selected)).reshape(self.mask[::step, ::step, ::step].shape)
        for axis in range(3):
            scores = np.repeat(scores, step, axis)
        i, j, k = self.mask.shape
        return SCORE_SLOPE * scores[:i, :j, :k]

    def _measure_mask_logits(self) -> Grid:
        """Returns the logits of the current mask; lower around the clicks that contradict it."""
        if not self.mask.any():
            return np.zeros(self.mask.shape, np.float32)
        logits = np.clip(self._depth_mm - self._distance_mm, -MASK_LIMIT, MASK_LIMIT)
        for points, gap in ((self.clicks.inside, self._distance_mm), (self.clicks.outside, self._depth_mm)):
            for point in points[gap[tuple(points.T)] > 0]:
                logits *= 1 - self._spread_click(point, 1.5 * float(gap[tuple(point)]))
        return logits

    def _measure_click_logits(self) -> Grid:
        """Returns the logits that the clicks add around them."""
        logits = np.zeros(self.mask.shape, np.float32)
        for points, sign in ((self.clicks.inside, 1), (self.clicks.outside, -1)):
            for point in points:
                logits += sign * CLICK_LOGIT * self._spread_click(point)
        return logits

    def _spread_click(self, point: Point, radius_mm: float = 0.0) -> Grid:
        """Returns a bell curve around a click, 1 at its middle and of the usual radius at least."""
        return np.exp(-0.5 * (self._measure_distances(point) / max(radius_mm, CLICK_RADIUS_MM)) ** 2)


def _thin_out(selected: Mask) -> Mask:
    """Returns about every n-th selected voxel, so that at most `MAX_EXAMPLES` are left."""
    offsets = np.flatnonzero(selected)
    thinned = np.zeros(selected.size, bool)
    thinned[offsets[:: -(-len(offsets) // MAX_EXAMPLES) or 1]] = True
    return thinned.reshape(selected.shape)


def _clean_mask(mask: Mask, anchors: Mask) -> Mask:
    """Returns the parts of a mask that hold an anchor, without holes."""
    numbers, _ = ndimage.label(mask)
    anchored = np.unique(numbers[anchors & mask])
    return ndimage.binary_fill_holes(np.isin(numbers, anchored[anchored > 0]))

"""Proposes the mask of one finding from clicks: a classifier of voxels, then a random walker, in a box around them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.review.assist.drawn_slices import NO_SLICES, DrawnSlices
from medssl.review.assist.label_context import LabelContext
from medssl.review.assist.scene import Clicks, Scene
from medssl.review.assist.signed_shape import SignedShape
from medssl.review.assist.voxel_classifier import measure_evidence
from medssl.review.assist.voxel_features import Features, IntensityScale, compute_features
from medssl.volume import Spacing, Volume

Box = tuple[slice, slice, slice]
Mask = Bool[np.ndarray, "i j k"]
ENGINE, ENGINE_VERSION = "medssl-assist", "2"  # a new version where stored contexts no longer fit
MAX_SIDE = 96  # voxels of the box along each axis
MARGIN_MM, FIRST_MARGIN_MM = 12.0, 25.0  # around a mask, and around clicks without a mask or drawn slices


@dataclass(frozen=True, eq=False)
class AssistImage:
    """An image as the proposals see it.

    Args:
        volume: The image on a RAS grid.
        scale: How its intensities are normalized.
        encoding: Features of an encoder as channels, on a grid of their own, 0 outside of it; None uses the intensities
            alone.
    """

    volume: Volume
    scale: IntensityScale
    encoding: Volume | None = None

    @classmethod
    def from_volume(cls, volume: Volume, encoding: Volume | None = None) -> "AssistImage":
        """Returns an image with the scale of its intensities."""
        ras = volume.reorient("RAS")
        return cls(ras, IntensityScale.fit(ras.voxels, ras.unit), encoding)

    def compute_features(self, box: Box) -> Features:
        """Returns the features of the voxels in a box; the first is the normalized intensity."""
        intensity = self.scale.apply(self.volume.voxels[box])
        features = compute_features(intensity, self.volume.spacing_mm())
        if self.encoding is None:
            return features
        corner = np.eye(4)
        corner[:3, 3] = [side.start for side in box]
        grid = Volume(intensity, self.volume.affine @ corner, "a.u.")
        encoding = self.encoding.resample_to(grid, order=1).voxels
        return np.concatenate([features, encoding.astype(np.float32)])


@dataclass(frozen=True, eq=False)
class Proposal:
    """A proposed mask, inside a box of the image; outside of it the mask stays as it was."""

    box: Box
    mask: Mask


def propose_mask(
    image: AssistImage,
    mask: Mask,
    clicks: Clicks,
    context: LabelContext | None = None,
    drawn: DrawnSlices = NO_SLICES,
) -> Proposal:
    """Proposes a mask that follows the drawn slices, the clicks, the current mask and what was signed before.

    Args:
        image: The image.
        mask: The current mask of the finding, on the grid of the image; may be empty.
        clicks: The clicks; at least one inside, unless the mask holds a voxel.
        context: What signed cases teach about the label of the finding; None if there are none.
        drawn: The slices in which the mask is as the reader wants it.
    """
    box = choose_box(mask, clicks, image.volume.spacing_mm(), FIRST_MARGIN_MM if drawn.count else MARGIN_MM)
    corner = np.array([side.start for side in box])
    local = Clicks(clicks.inside - corner, clicks.outside - corner).keep_within(mask[box].shape)
    scene = Scene(image.compute_features(box), mask[box], local, image.volume.spacing_mm(), drawn.crop(box))
    return Proposal(box, scene.propose(context))


def choose_box(mask: Mask, clicks: Clicks, spacing_mm: Spacing, margin_mm: float = MARGIN_MM) -> Box:
    """Returns the box of the mask and the clicks with a margin; one that is too large is cut around the last click."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    corners = [[side.start for side in boxes[0]], [side.stop - 1 for side in boxes[0]]] if boxes else []
    points = np.array([*corners, *clicks.all_points.tolist()])
    margin = np.array([(margin_mm if boxes else FIRST_MARGIN_MM) / mm for mm in spacing_mm])
    low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + margin) + 1, mask.shape).astype(int)
    centre = clicks.all_points[-1] if len(clicks.all_points) else (low + high) // 2
    start = np.clip(centre - MAX_SIDE // 2, low, np.maximum(low, high - MAX_SIDE))
    i, j, k = (slice(int(a), int(min(b, a + MAX_SIDE))) for a, b in zip(start, high, strict=True))
    return i, j, k


def learn_from_mask(image: AssistImage, mask: Mask) -> LabelContext:
    """Returns what the mask of one finding teaches, as a reader signed it; it must hold a voxel."""
    spacing_mm = image.volume.spacing_mm()
    box = choose_box(mask, Clicks.none(), spacing_mm)
    scene = Scene(image.compute_features(box), mask[box], Clicks.none(), spacing_mm)
    evidence = measure_evidence(scene.build_embedding(np.ones(scene.mask.shape, bool)), scene.mask.ravel())
    return LabelContext(1, evidence, (SignedShape.from_mask(scene.mask, spacing_mm),))


def apply_proposal(mask: Mask, proposal: Proposal) -> Mask:
    """Returns the mask with the proposal in its box."""
    after = mask.copy()
    after[proposal.box] = proposal.mask
    return after

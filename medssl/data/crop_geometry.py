"""Locates crops in their scans and finds corresponding crops of different scans."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from medssl.data.crops import Crops

PairStrategy = Literal["GR", "GD-", "GD"]  # Chaitanya et al. (2020), https://arxiv.org/abs/2006.10511
NO_SCAN = -1


@dataclass(frozen=True)
class CropPositions:
    """Position of each crop in its scan.

    Attributes:
        volume: Number of the scan, NO_SCAN in an empty row.
        along: Crop centre along one body axis as a fraction, 0 to 1, of the scan's extent.
        extent_mm: Extent of the scan from left to right, back to front and feet to head.
    """

    volume: Int[Tensor, "n"]
    along: Float[Tensor, "n"]
    extent_mm: Float[Tensor, "n 3"]

    def map_columns(self, change: Callable[[Tensor], Tensor]) -> "CropPositions":
        """Applies a function, such as a selection of rows, to every column."""
        return CropPositions(*(change(getattr(self, field.name)) for field in fields(self)))

    def concatenate(self, other: "CropPositions") -> "CropPositions":
        """Appends the rows of `other`."""
        columns = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return CropPositions(*(torch.cat(pair) for pair in columns))

    def partition_index(self, count: int) -> Int[Tensor, "n"]:
        """Returns which of `count` equal slabs of its scan each crop's centre lies in, from 0."""
        return (self.along * count).long().clamp(0, count - 1)


def crop_positions(crops: Crops, axis: int) -> CropPositions:
    """Computes the position of every view, volume by volume.

    Args:
        crops: Views cut without rotation or scaling.
        axis: Body axis of `CropPositions.along`: 0 left to right, 1 back to front, 2 feet to head.
    """
    low, high = scan_bounds_mm(crops)
    affine = crops.affine.flatten(0, 1).double()
    centre = (affine.new_tensor(crops.x.shape[-3:]) - 1) / 2
    centre_mm = affine[:, :3, :3] @ centre + affine[:, :3, 3]
    along = ((centre_mm - low) / (high - low))[:, axis].clamp(0, 1)
    return CropPositions(crops.volume.repeat_interleave(crops.x.shape[1]), along.float(), (high - low).float())


def scan_bounds_mm(crops: Crops) -> tuple[Float64[Tensor, "n 3"], Float64[Tensor, "n 3"]]:
    """Computes the lowest and highest corner, in mm, of the scan of every view."""
    # Double precision, which autocast leaves alone.
    affine, corner = crops.affine.flatten(0, 1).double(), crops.corner.flatten(0, 1)
    first = -0.5 - corner.double()
    last = first + crops.size.repeat_interleave(crops.x.shape[1], 0)
    upper = torch.cartesian_prod(*[torch.tensor([False, True], device=affine.device)] * 3)
    corners = torch.where(upper, last[:, None], first[:, None])
    corners_mm = corners @ affine[:, :3, :3].mT + affine[:, None, :3, 3]
    return corners_mm.amin(1), corners_mm.amax(1)


def voxel_to_scan_fraction(crops: Crops) -> Float[Tensor, "n 4 4"]:
    """Computes the affine from a view's voxel indices to fractions of its scan's extent, 0 to 1 along each body axis.

    Body axes run from left to right, back to front and feet to head.
    """
    low, high = scan_bounds_mm(crops)
    box = torch.diag_embed(torch.cat([high - low, torch.ones_like(low[:, :1])], 1))
    box[:, :3, 3] = low
    return torch.linalg.solve(box, crops.affine.flatten(0, 1).double()).float()


def has_same_field_of_view(a: CropPositions, b: CropPositions, tolerance: float) -> Bool[Tensor, "n m"]:
    """Compares every pair of scans: whether their extents agree on all axes to within the fraction `tolerance`."""
    ratio = a.extent_mm[:, None] / b.extent_mm.clamp(min=1e-6)
    return (ratio.clamp(min=1e-6).log().abs() <= math.log1p(tolerance)).all(-1)


def positive_and_ignored_pairs(
    a: CropPositions,
    b: CropPositions,
    strategy: PairStrategy,
    num_partitions: int,
    tolerance: float,
    exclusion_margin: float,
) -> tuple[Bool[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Determines which pairs of crops of different scans are positives and which are left out of the loss.

    Empty rows and pairs from one scan are always left out. Pairs in the same partition of different scans are
    negatives with "GR", left out with "GD-" and positives with "GD". Where fields of view differ, partitions do not
    correspond: no pair is a positive, and pairs closer than the margin are left out. The strategies follow Chaitanya
    et al. (2020), https://arxiv.org/abs/2006.10511.

    Args:
        a: Positions of n crops.
        b: Positions of m crops.
        strategy: How crops of the same partition relate.
        num_partitions: Number of equal slabs that a scan is divided into.
        tolerance: Fraction by which extents of a shared field of view may differ.
        exclusion_margin: Distance below which crops of different fields of view are left out, as a fraction of the
            extent.

    Returns:
        Masks of positive and of ignored pairs.
    """
    same = is_same_scan(a, b)
    if strategy == "GR":
        return torch.zeros_like(same), same
    comparable = has_same_field_of_view(a, b, tolerance)
    same_partition = a.partition_index(num_partitions)[:, None] == b.partition_index(num_partitions)
    near = torch.where(comparable, same_partition, (a.along[:, None] - b.along).abs() < exclusion_margin)
    positive = near & comparable & ~same if strategy == "GD" else torch.zeros_like(same)
    return positive, same | (near & ~positive)


def number_looks(crops: Crops) -> Int[Tensor, "n"]:
    """Returns a number for each view, the same for views of a volume that share half of their voxels with the first."""
    affine, shape = crops.affine.double(), crops.affine.new_tensor(crops.x.shape[-3:]).double()
    centre_mm = affine[..., :3, :3] @ ((shape - 1) / 2) + affine[..., :3, 3]
    offset = torch.linalg.solve(affine[:, :1, :3, :3], (centre_mm - centre_mm[:, :1])[..., None])[..., 0]
    is_shared = (1 - offset.abs() / shape).clamp_min(0).prod(-1) >= 0.5
    index = torch.arange(is_shared.numel(), device=affine.device).reshape(is_shared.shape)
    return torch.where(is_shared, index[:, :1], index).flatten()


def extend_positives(
    positive: Bool[Tensor, "n m"], a_look: Int[Tensor, "n"], b_look: Int[Tensor, "m"]
) -> Bool[Tensor, "n m"]:
    """Returns the pairs of crops between whose looks some pair is positive: one hop, so that no chain of scans forms.

    Args:
        positive: Which pairs are positive.
        a_look: Number of the look of each of n crops, see `number_looks`.
        b_look: Number of the look of each of m crops.
    """
    same_a, same_b = ((look[:, None] == look).float() for look in (a_look, b_look))
    return same_a @ positive.float() @ same_b > 0


def is_same_scan(a: CropPositions, b: CropPositions) -> Bool[Tensor, "n m"]:
    """Compares every pair of rows: whether they are of one scan, or one of them is empty."""
    return (a.volume[:, None] == b.volume) | (a.volume[:, None] == NO_SCAN) | (b.volume == NO_SCAN)

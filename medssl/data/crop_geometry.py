"""Places: where crops lie in their scans, and which crops of different scans correspond."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from medssl.data.crops import Crops

Pairs = Literal["GR", "GD-", "GD"]
NOWHERE = -1


@dataclass(frozen=True)
class Places:
    """The scan, its extent, and a crop's centre along the body as a share of that extent; blank where `NOWHERE`."""

    volume: Int[Tensor, "n"]
    along: Float[Tensor, "n"]
    extent_mm: Float[Tensor, "n 3"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Places":
        """These places with every column changed, as by picking rows."""
        return Places(*(change(getattr(self, f.name)) for f in fields(self)))

    def cat(self, other: "Places") -> "Places":
        """These places, then the others."""
        return Places(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def partition(self, count: int) -> Int[Tensor, "n"]:
        """Which of `count` equal slabs of its scan a crop's centre lies in."""
        return (self.along * count).long().clamp(0, count - 1)


def places(crops: Crops, axis: int) -> Places:
    """The place of every view, volume after volume; `axis` 0, 1, 2 is left to right, back to front, feet to head."""
    low, high = bounds_mm(crops)
    affine = crops.affine.flatten(0, 1).double()
    centre = (affine.new_tensor(crops.x.shape[-3:]) - 1) / 2
    centre_mm = affine[:, :3, :3] @ centre + affine[:, :3, 3]
    along = ((centre_mm - low) / (high - low))[:, axis].clamp(0, 1)
    return Places(crops.volume.repeat_interleave(crops.x.shape[1]), along.float(), (high - low).float())


def bounds_mm(crops: Crops) -> tuple[Float64[Tensor, "n 3"], Float64[Tensor, "n 3"]]:
    """The lowest and highest corner of the scan of every view; views are cut from it, neither turned nor scaled."""
    # In double precision, which autocast leaves alone.
    affine, corner = crops.affine.flatten(0, 1).double(), crops.corner.flatten(0, 1)
    first = -0.5 - corner.double()
    last = first + crops.size.repeat_interleave(crops.x.shape[1], 0)
    upper = torch.cartesian_prod(*[torch.tensor([False, True], device=affine.device)] * 3)
    corners = torch.where(upper, last[:, None], first[:, None])
    mm = corners @ affine[:, :3, :3].mT + affine[:, None, :3, 3]
    return mm.amin(1), mm.amax(1)


def share_of_scan(crops: Crops) -> Float[Tensor, "n 4 4"]:
    """What maps a view's voxel index to shares, 0 to 1, of its scan's extent from left to right, back to front, up."""
    low, high = bounds_mm(crops)
    box = torch.diag_embed(torch.cat([high - low, torch.ones_like(low[:, :1])], 1))
    box[:, :3, 3] = low
    return torch.linalg.solve(box, crops.affine.flatten(0, 1).double()).float()


def comparable(a: Places, b: Places, tolerance: float) -> Bool[Tensor, "n m"]:
    """Whether two scans share a field of view: on all three axes their extents agree within a share."""
    ratio = a.extent_mm[:, None] / b.extent_mm.clamp(min=1e-6)
    return (ratio.clamp(min=1e-6).log().abs() <= math.log1p(tolerance)).all(-1)


def relate(
    a: Places, b: Places, pairs: Pairs, partitions: int, tolerance: float, soft: float
) -> tuple[Bool[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Which crops of different scans attract each other, and which pairs are left out as neither alike nor different.

    Left out are blanks and crops of one scan, by GD- also crops of the same partition of other scans, which by GD
    attract. Where fields of view differ, partitions do not correspond: nothing attracts, and crops closer than `soft`
    of the extent are left out. The names are those of Chaitanya et al. (2020), https://arxiv.org/abs/2006.10511.
    """
    same = same_scan(a, b)
    if pairs == "GR":
        return torch.zeros_like(same), same
    shared = comparable(a, b, tolerance)
    level = a.partition(partitions)[:, None] == b.partition(partitions)
    near = torch.where(shared, level, (a.along[:, None] - b.along).abs() < soft)
    attract = near & shared & ~same if pairs == "GD" else torch.zeros_like(same)
    return attract, same | (near & ~attract)


def same_scan(a: Places, b: Places) -> Bool[Tensor, "n m"]:
    """Whether two crops are of one scan, or one of them is blank."""
    return (a.volume[:, None] == b.volume) | (a.volume[:, None] == NOWHERE) | (b.volume == NOWHERE)

"""Regions: the same places in two crops, found through the patient, and the features that lie there."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoder import Encoder


def both_views(
    affine: Float[Tensor, "n 4 4"],
    views: int,
    shape: tuple[int, ...],
    count: int,
    margin: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n r 3"], Float[Tensor, "n r 3"]]:
    """For each crop a crop of the same volume, and `count` places as voxel indices of the first and of the second.

    The second is the next of its volume's views where the two overlap, and the crop itself where they do not.
    """
    own = torch.arange(len(affine), device=affine.device)
    other = own - own % views + (own + 1) % views
    here, there, enough = common(crossing(affine, affine[other]), shape, count, margin, generator)
    return torch.where(enough, other, own), here, torch.where(enough[:, None, None], there, here)


def crossing(source: Float[Tensor, "n 4 4"], target: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """What maps a voxel index of one crop to the voxel index of another that lies at the same mm."""
    return torch.linalg.solve(target.double(), source.double()).to(source.dtype)


def moved(points: Float[Tensor, "n m 3"], change: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n m 3"]:
    """Points under an affine map; in double precision, which autocast leaves alone."""
    change = change.double()
    return (points.double() @ change[:, :3, :3].mT + change[:, None, :3, 3]).to(points.dtype)


def inside(points: Float[Tensor, "n m 3"], shape: tuple[int, ...], margin: float) -> Bool[Tensor, "n m"]:
    """Whether a voxel index lies in a crop, at least `margin` voxels from its faces."""
    last = points.new_tensor(shape) - 0.5 - margin
    return ((points >= margin - 0.5) & (points <= last)).all(-1)


def common(
    change: Float[Tensor, "n 4 4"],
    shape: tuple[int, ...],
    count: int,
    margin: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n r 3"], Float[Tensor, "n r 3"], Bool[Tensor, "n"]]:
    """`count` places as voxel indices of both crops, and whether the crops share that many.

    Where they do not, the places are the first crop's own: the caller decides what stands in for the second.
    """
    if 2 * margin >= min(shape):
        raise BadInput(
            f"regions of {2 * margin:g} voxels do not fit into a crop of {shape}; use a finer level or smaller ones"
        )
    low, span = margin - 0.5, torch.tensor(shape) - 2 * margin
    points = torch.rand(len(change), 16 * count, 3, generator=generator) * span + low
    points = points.to(change)
    there = moved(points, change)
    found = inside(there, shape, margin)
    chosen = found.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count, None].expand(-1, -1, 3)
    enough = found.sum(1) >= count
    return points.gather(1, chosen), there.gather(1, chosen), enough


def sample(
    features: Float[Tensor, "n c p q r"], points: Float[Tensor, "n m 3"], shape: tuple[int, ...], width: int = 1
) -> Float[Tensor, "n m c"]:
    """Features at voxel indices of the crop they were computed from; each the mean over `width` positions a side."""
    if width > 1:
        features = F.avg_pool3d(features, width, stride=1, padding=width // 2, count_include_pad=False)
    grid = ((2 * points + 1) / points.new_tensor(shape) - 1).flip(-1)[:, :, None, None].float()
    # In fp32 throughout: bf16 coordinates would be off by half a voxel.
    taken = F.grid_sample(features.float(), grid, align_corners=False, padding_mode="border")
    return taken[..., 0, 0].mT


def width_at(level: int, encoder: Encoder) -> int:
    """The channels of one level, or an error that says which levels there are."""
    if level >= len(encoder.channels):
        raise BadInput(f"level {level}: the encoder has levels 0 (finest) to {len(encoder.channels) - 1}")
    return encoder.channels[level]

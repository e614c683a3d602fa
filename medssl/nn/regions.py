"""Samples points that two crops share by their patient coordinates, and features at these points."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.collectives import draw_rows
from medssl.nn.encoder import Encoder


def sample_matching_points(
    affine: Float[Tensor, "n 4 4"],
    views: int,
    shape: tuple[int, ...],
    count: int,
    margin: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n r 3"], Float[Tensor, "n r 3"]]:
    """Samples points that each crop shares with another view of the same volume.

    Args:
        affine: Voxel index -> mm of each crop; the views of a volume are consecutive.
        views: Number of views of each volume.
        shape: Shape of a crop in voxels.
        count: Number of points to sample for each crop.
        margin: Smallest distance of a point to the faces of both crops, in voxels.
        generator: A generator on the CPU, with the same state in all processes.

    Returns:
        For each crop, the index of the other crop, and the points as voxel indices of the crop and of the other crop.
        The other crop is the next view of the volume if both overlap, and the crop itself otherwise.
    """
    index = torch.arange(len(affine), device=affine.device)
    other = index - index % views + (index + 1) % views
    transform = compute_voxel_transform(affine, affine[other])
    points, other_points, overlaps = sample_shared_points(transform, shape, count, margin, generator)
    other_points = torch.where(overlaps[:, None, None], other_points, points)
    return torch.where(overlaps, other, index), points, other_points


def compute_voxel_transform(source: Float[Tensor, "n 4 4"], target: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Returns the affine map from voxel indices of one crop to those of another at the same position in mm."""
    return torch.linalg.solve(target.double(), source.double()).to(source.dtype)


def apply_affine(points: Float[Tensor, "n m 3"], transform: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n m 3"]:
    """Maps points by an affine, in double precision, which autocast does not change."""
    transform = transform.double()
    return (points.double() @ transform[:, :3, :3].mT + transform[:, None, :3, 3]).to(points.dtype)


def is_inside(points: Float[Tensor, "n m 3"], shape: tuple[int, ...], margin: float) -> Bool[Tensor, "n m"]:
    """Returns whether voxel indices lie in a crop, at least `margin` voxels from its faces."""
    last = points.new_tensor(shape) - 0.5 - margin
    return ((points >= margin - 0.5) & (points <= last)).all(-1)


def sample_shared_points(
    transform: Float[Tensor, "n 4 4"],
    shape: tuple[int, ...],
    count: int,
    margin: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n r 3"], Float[Tensor, "n r 3"], Bool[Tensor, "n"]]:
    """Samples points that lie in both crops of each pair.

    Args:
        transform: Voxel index of the first crop -> voxel index of the second.
        shape: Shape of a crop in voxels.
        count: Number of points to sample for each pair.
        margin: Smallest distance of a point to the faces of both crops, in voxels.
        generator: A generator on the CPU, with the same state in all processes.

    Returns:
        The points as voxel indices of the first and of the second crop, and whether the crops share that many points.
        If they do not, some points lie outside the second crop.

    Raises:
        BadInput: If no point of a crop keeps the margin.
    """
    if 2 * margin >= min(shape):
        raise BadInput(
            f"regions of {2 * margin:g} voxels do not fit into a crop of {shape}; "
            "use smaller regions or a finer decoder level"
        )
    low, span = margin - 0.5, torch.tensor(shape) - 2 * margin
    points = draw_rows((len(transform), 16 * count, 3), generator) * span + low
    points = points.to(transform)
    other_points = apply_affine(points, transform)
    shared = is_inside(other_points, shape, margin)
    selected = shared.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count, None].expand(-1, -1, 3)
    return points.gather(1, selected), other_points.gather(1, selected), shared.sum(1) >= count


def sample_features(
    features: Float[Tensor, "n c p q r"], points: Float[Tensor, "n m 3"], shape: tuple[int, ...], width: int = 1
) -> Float[Tensor, "n m c"]:
    """Interpolates a feature map at points of the crop it was computed from.

    Args:
        features: One feature map for each crop.
        points: Voxel indices of the crop.
        shape: Shape of the crop in voxels.
        width: Side of the region that is averaged around each point, in positions of the feature map.
    """
    if width > 1:
        features = F.avg_pool3d(features, width, stride=1, padding=width // 2, count_include_pad=False)
    grid = ((2 * points + 1) / points.new_tensor(shape) - 1).flip(-1)[:, :, None, None].float()
    # In fp32, since coordinates in bf16 are off by up to half a voxel.
    samples = F.grid_sample(features.float(), grid, align_corners=False, padding_mode="border")
    return samples[..., 0, 0].mT


def get_level_channels(level: int, encoder: Encoder) -> int:
    """Returns the number of channels of a pyramid level, or raises BadInput if the encoder has no such level."""
    if level >= len(encoder.channels):
        raise BadInput(f"level {level}: the encoder has levels 0 (finest) to {len(encoder.channels) - 1}")
    return encoder.channels[level]

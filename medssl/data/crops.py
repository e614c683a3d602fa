"""Crops of volumes, and batches of them for objectives and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.data.transforms.map_tensors import map_tensors
from medssl.data.transforms.patch_mask import PatchMask
from medssl.errors import BadInput


@dataclass(frozen=True)
class Crops:
    """A batch of v views of each of b volumes.

    Attributes:
        x: Intensities in [0, 1].
        corner: First voxel of each view in the stored volume; negative where the view begins in padding.
        size: Shape of the stored volume in voxels.
        affine: Voxel index of a view -> mm, RAS+.
        volume: Number of the volume that each row was cut from.
        label: Class of each voxel, negative where unknown.
        annotated: Which classes are annotated in each volume; None if all are.
        x_all_channels: `x` before channels were dropped; None if none were.
        mask: Which patches a masked objective hides; None until it draws them.
    """

    x: Float[Tensor, "b v c i j k"]
    corner: Int[Tensor, "b v 3"]
    size: Int[Tensor, "b 3"]
    affine: Float[Tensor, "b v 4 4"]
    volume: Int[Tensor, "b"]
    label: Int[Tensor, "b v i j k"] | None = None
    annotated: Bool[Tensor, "b n"] | None = None
    x_all_channels: Float[Tensor, "b v c i j k"] | None = None
    mask: PatchMask | None = None

    def reconstruction_target(self) -> Float[Tensor, "n c i j k"]:
        """Returns the target for reconstructing each view, including channels that were dropped from the input."""
        return (self.x if self.x_all_channels is None else self.x_all_channels).flatten(0, 1)

    def require_label(self) -> Int[Tensor, "b v i j k"]:
        """Returns the labels, or raises BadInput if there are none."""
        if self.label is None:
            raise BadInput("these crops have no labels; cut them from labelled cases with CropDataset(labelled=True)")
        return self.label

    def annotated_per_view(self) -> Bool[Tensor, "m n"] | None:
        """Returns `annotated` with one row for each view."""
        return None if self.annotated is None else self.annotated.repeat_interleave(self.x.shape[1], 0)

    def spacing_mm(self) -> tuple[float, float, float]:
        """Returns the median voxel spacing of the views along i, j, k."""
        return median_spacing_mm(self.affine)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Crops":
        """Copies the crops to another device."""
        crops: Crops = map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return crops

    def pin_memory(self) -> "Crops":
        """Copies the crops into page-locked memory, from which they reach a GPU while it computes."""
        crops: Crops = map_tensors(self, lambda tensor: tensor.pin_memory())
        return crops


@dataclass(frozen=True)
class CropItem:
    """The views of one volume: one row of `Crops`."""

    x: Float[Tensor, "v c i j k"]
    corner: Int[Tensor, "v 3"]
    size: Int[Tensor, "3"]
    affine: Float[Tensor, "v 4 4"]
    volume: int
    label: Int[Tensor, "v i j k"] | None = None
    annotated: Bool[Tensor, "n"] | None = None


def median_spacing_mm(affine: Float[Tensor, "b v 4 4"]) -> tuple[float, float, float]:
    """Returns the median voxel spacing of views along i, j, k."""
    i, j, k = affine[..., :3, :3].flatten(0, 1).norm(dim=1).median(0).values.tolist()
    return i, j, k


def collate(items: Sequence[CropItem]) -> Crops:
    """Stacks items to a batch, with `label` and `annotated` only if every item has them."""
    labels = [item.label for item in items if item.label is not None]
    annotated = [item.annotated for item in items if item.annotated is not None]
    return Crops(
        x=torch.stack([item.x for item in items]),
        corner=torch.stack([item.corner for item in items]),
        size=torch.stack([item.size for item in items]),
        affine=torch.stack([item.affine for item in items]),
        volume=torch.tensor([item.volume for item in items], device=items[0].x.device),
        label=torch.stack(labels) if len(labels) == len(items) else None,
        annotated=torch.stack(annotated) if len(annotated) == len(items) else None,
    )

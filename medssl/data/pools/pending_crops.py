"""Crops before their augmentation: drawn and read by a loader, and augmented there or on the device that trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from medssl.data.crops import CropItem, Crops, collate
from medssl.data.transforms.augmentation import PendingView
from medssl.data.transforms.map_tensors import map_tensors


@dataclass(frozen=True)
class PendingItem:
    """The views of one volume before their augmentation.

    Attributes:
        views: A box of the volume and the drawn changes of each view.
        corner: First voxel of each view in the stored volume.
        size: Shape of the stored volume in voxels.
        affine: Voxel index of a view -> mm, RAS+.
        volume: Number of the volume.
        annotated: Which classes are annotated; None if all are.
        channel: The only channel that is kept; None keeps all.
        fill_label: Value of all voxels of the label, if the views have none; None leaves it out.
    """

    views: tuple[PendingView, ...]
    corner: Int[Tensor, "v 3"]
    size: Int[Tensor, "3"]
    affine: Float[Tensor, "v 4 4"]
    volume: int
    annotated: Bool[Tensor, "n"] | None = None
    channel: int | None = None
    fill_label: int | None = None

    def augment(self) -> CropItem:
        """Returns the augmented views."""
        crops = [view.augment() for view in self.views]
        x = torch.stack([x for x, _ in crops])
        labels = [label for _, label in crops if label is not None]
        label = torch.stack(labels) if labels else None
        if label is None and self.fill_label is not None:
            label = torch.full((len(x), *x.shape[2:]), self.fill_label, device=x.device)
        if self.channel is not None:
            x = x[:, self.channel : self.channel + 1].clone()
        return CropItem(x, self.corner, self.size, self.affine, self.volume, label, self.annotated)


@dataclass(frozen=True)
class PendingCrops:
    """A batch before its augmentation.

    The tensors of its items have many shapes. They lie one behind the other in one buffer of each type, so that few
    objects are passed between processes and copied to the device.

    Attributes:
        items: The items, with tensors that have a shape and a type but no values.
        buffers: The values of all tensors of a type, in their order.
    """

    items: tuple[PendingItem, ...]
    buffers: tuple[Tensor, ...]

    @classmethod
    def pack(cls, items: Sequence[PendingItem]) -> "PendingCrops":
        """Packs items to a batch."""
        parts: dict[torch.dtype, list[Tensor]] = {}

        def store(tensor: Tensor) -> Tensor:
            dense = tensor if tensor.is_contiguous() else tensor.clone()  # with the same order of axes in memory
            parts.setdefault(tensor.dtype, []).append(dense.as_strided((tensor.numel(),), (1,)))
            return torch.empty_like(dense, device="meta")

        empty = map_tensors(tuple(items), store)
        return cls(empty, tuple(torch.cat(tensors) for tensors in parts.values()))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PendingCrops":
        """Copies the batch to another device."""
        return replace(self, buffers=tuple(each.to(device, non_blocking=non_blocking) for each in self.buffers))

    def pin_memory(self) -> "PendingCrops":
        """Copies the batch into page-locked memory, from which it reaches a GPU while it computes."""
        return replace(self, buffers=tuple(each.pin_memory() for each in self.buffers))

    def augment(self) -> Crops:
        """Returns the augmented crops, on the device of the batch."""
        rest = {each.dtype: each for each in self.buffers}

        def take(empty: Tensor) -> Tensor:
            values, rest[empty.dtype] = rest[empty.dtype].tensor_split((empty.numel(),))
            return values.as_strided(empty.shape, empty.stride())

        return collate([item.augment() for item in map_tensors(self.items, take)])


class CropSource(Dataset[CropItem]):
    """The base class of data sets of crops, of which item n is a pure function of n."""

    def draw_item(self, number: int) -> PendingItem:
        """Draws all random numbers of an item and reads its volume."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, number: int) -> CropItem:
        return self.draw_item(number).augment()


class PendingItems(Dataset[PendingItem]):
    """The items of a data set before their augmentation."""

    def __init__(self, source: CropSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> PendingItem:
        return self.source.draw_item(number)


def augment_crops(batch: Crops | PendingCrops) -> Crops:
    """Returns the crops of a batch, which are augmented here if the loader has not done so."""
    return batch.augment() if isinstance(batch, PendingCrops) else batch

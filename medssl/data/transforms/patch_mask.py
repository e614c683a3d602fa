"""The mask of a batch for masked pretraining, with what the host knows about it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class PatchMask:
    """Which patches of each crop are visible, and which hold body.

    Attributes:
        visible: Which patches are visible.
        body: Which patches hold body.
        num_visible: Number of visible patches in the batch, so that no step has to read it from a device.
    """

    visible: Bool[Tensor, "n 1 p q r"]
    body: Bool[Tensor, "n 1 p q r"]
    num_visible: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PatchMask":
        """Copies the mask to another device."""
        visible, body = (t.to(device, non_blocking=non_blocking) for t in (self.visible, self.body))
        return PatchMask(visible, body, self.num_visible)

    def pin_memory(self) -> "PatchMask":
        """Copies the mask into page-locked memory."""
        return PatchMask(self.visible.pin_memory(), self.body.pin_memory(), self.num_visible)

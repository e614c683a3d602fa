"""The mask of a batch for masked pretraining, with what the host knows about it."""

from dataclasses import dataclass

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

"""The encoder contract: a volume and, on request, which of its cells are visible, give a pyramid."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


class Encoder(nn.Module):
    """Gives a pyramid of features, fine to coarse; `channels` and `strides` have one entry a level."""

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]

    def forward(self, x: Float[Tensor, "b c i j k"], keep: Bool[Tensor, "b 1 p q r"] | None = None) -> list[Tensor]:
        """Features at every level; with `keep`, hidden cells are empty at every level and change nothing."""
        raise NotImplementedError

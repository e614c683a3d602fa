"""Means over a part of a tensor."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean_where(x: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The mean of `x` where asked for; 0 where nothing is."""
    return (x * where).sum() / where.sum().clamp_min(1)

"""What one batch gives: a loss to descend and numbers to watch."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A scalar loss, and detached scalars by name."""

    loss: Float[Tensor, ""]
    logs: dict[str, Float[Tensor, ""]] = field(default_factory=dict)

"""What one batch gives: a loss to descend and numbers to watch."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A scalar loss, detached scalars by name, and, of what compares embeddings, a detached true pair of every crop."""

    loss: Float[Tensor, ""]
    logs: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    pairs: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]] | None = None

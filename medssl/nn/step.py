"""The result of a training step: a loss, values to log and positive pairs of embeddings."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """The result of one batch.

    Attributes:
        loss: A scalar to minimise.
        logs: Detached scalars by name.
        positive_pairs: Detached embeddings of positive pairs, one pair for each crop; None if the objective compares no
            embeddings.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    positive_pairs: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]] | None = None
